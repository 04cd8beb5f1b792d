"""The small networks and the triplet loss of the audio-visual zero-shot family."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

MOMENTUM = 0.1


def embedding_net(
    width: int,
    hidden: int,
    out: int,
    *,
    norm: bool = True,
    last: Literal["norm", "relu", "linear"] = "norm",
    dropout: float = 0.0,
    momentum: float = MOMENTUM,
) -> nn.Sequential:
    """A network of vectors [M, width] to [M, out]: one step, or two by way of ``hidden`` entries where that is not 0.

    A step is a linear layer, a batch norm (where ``norm`` says so), ReLU and dropout. The last step may end earlier:
    "relu" leaves its norm and dropout away, and "linear" all but its linear layer. momentum: that of the second batch
    norm, where there are two.
    """
    widths = [width, hidden, out] if hidden else [width, out]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(pairwise(widths)):
        is_last = place == len(widths) - 2
        layers.append(nn.Linear(before, after))
        if is_last and last != "norm":
            return nn.Sequential(*layers, *([nn.ReLU()] if last == "relu" else []))
        if norm:
            layers.append(nn.BatchNorm1d(after, momentum=momentum if place else MOMENTUM))
        layers += [nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)


def applied(net: nn.Module, x: Tensor) -> Tensor:
    """A network of vectors applied to x [..., D]; all leading axes are one batch to it."""
    flat: Tensor = net(x.reshape(-1, x.shape[-1]))
    return flat.view(*x.shape[:-1], flat.shape[-1])


def triplet(anchor: Tensor, right: Tensor, wrong: Tensor, margin: float = 1.0) -> Tensor:
    """relu(|anchor - right| - |anchor - wrong| + margin) of the rows of [M, D], [M]."""
    return (F.pairwise_distance(anchor, right) - F.pairwise_distance(anchor, wrong) + margin).clamp(min=0)
