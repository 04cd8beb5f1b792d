"""What a tuning asks of an encoder's features; each objective holds what is learned beside the encoder.

The arithmetic that methods have, too (contrast of two views, error of masked steps, a head's loss), is handed in by
``Losses``, because extraction imports no head.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from ..encoders.tunable import Tunable
from .batches import Batch

Embed = Callable[[Tensor], Tensor]
_POINT = 128  # the width of the projection's last layer, in which views are compared


@dataclass(frozen=True, kw_only=True)
class JointInputs:
    """What a head is built for that is learned together with an encoder."""

    dim: int
    """The width D of the encoder's features."""
    steps: int
    """The steps F that are read of a clip."""
    classes: int
    """The number of base classes."""
    way: int
    """The classes of an episode."""
    shot: int
    """The supports of a class."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The arithmetic of methods that objectives use."""

    contrast: Callable[[Tensor, Tensor, float], Tensor]
    """SimCLR's loss of two views' unit vectors [M, D], by a temperature."""
    masked_error: Callable[[Tensor, Tensor, Tensor], Tensor]
    """The error of what is said of masked steps: said and true [M, T, D], and masked, bool [M, T]."""
    joint: Callable[[JointInputs], nn.Module]
    """A head's loss of features [M, F, D] and labels [M] of one episode, class by class, supports before queries."""


class Objective(nn.Module):
    """One objective. views: the views that it compares. whole: whether it reads all steps of a clip."""

    views, whole = 1, False

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        """The loss of a batch. embed: the features [N, D] of frames [N, ...], as the encoder gives them now."""
        raise TypeError(f"{type(self).__name__} does not define forward")


class Contrast(Objective):
    """SimCLR and SimCLRv2 (Chen et al., ICML 2020 and NeurIPS 2020): two views of a clip are told from other clips'.

    Each view reads frames of its own. Of the projection, SimCLRv2's first ``kept`` layers become a part of the encoder;
    they are applied to every frame, and the mean over the frames goes on.
    """

    views = 2

    def __init__(self, dim: int, layers: int, kept: int, temperature: float, losses: Losses) -> None:
        super().__init__()
        widths = [dim] * layers + [_POINT]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.kept, self.temperature, self.contrast = kept, temperature, losses.contrast

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        x = unit_entries(embedded(embed, batch.frames))
        first, rest = self.layers[: self.kept], self.layers[self.kept :]
        for layer in first:
            x = layer(x).relu()
        x = x.mean(-2)
        for layer in rest[:-1]:
            x = layer(x).relu()
        points = F.normalize(rest[-1](x), dim=-1)
        return self.contrast(points[0], points[1], self.temperature)

    def kept_layers(self) -> dict[str, Tensor]:
        """The tensors of the layers that become a part of the encoder."""
        return dict(self.layers[: self.kept].state_dict())


class Supervised(Objective):
    """Cross-entropy over base classes of the mean of a clip's frames, by a linear classifier.

    Where clips have several labels, it is the binary cross-entropy of each class.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Linear(dim, classes)

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        assert batch.label is not None, "the objective reads labels"
        said = self.classifier(unit_entries(embedded(embed, batch.frames)[0].mean(1)))
        if batch.label.ndim > 1:
            return F.binary_cross_entropy_with_logits(said, batch.label)
        return F.cross_entropy(said, batch.label)


class Joint(Objective):
    """A head's own loss of the clips of a base episode, end to end: encoder and head are learned together."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        value: Tensor = self.head(embedded(embed, batch.frames)[0], batch.label)
        return value


def embedded(embed: Embed, frames: Tensor) -> Tensor:
    """The features [V, M, F, D] of frames [V, M, F, ...]."""
    return embed(frames.flatten(0, 2)).unflatten(0, frames.shape[:3])


def unit_entries(x: Tensor) -> Tensor:
    """The vectors [..., D] with entries near one, as linear maps want them: of length root of D."""
    return F.normalize(x, dim=-1) * x.shape[-1] ** 0.5
