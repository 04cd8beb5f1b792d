"""Low-rank adapters (Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022): a matrix learns a sum.

They are parametrisations of torch, so that any layer that reads its weight (linear maps, convolutions, attention) takes
them, and merging leaves the network as it was built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRank(nn.Module):
    """A weight plus the product of two thin matrices, which begins as zero."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        rank = min(rank, rows, columns)
        down = (
            torch.randn(rank, columns) / columns**0.5
        )  # It is drawn on the CPU, so that devices begin alike.
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=weight.device))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with what was learned."""
        return weight + (self.up @ self.down).view_as(weight)


def add_adapters(units: Sequence[nn.Module], rank: int) -> list[nn.Parameter]:
    """Give every matrix of these units an adapter, and return the adapters' weights; the matrices stay as they are."""
    found: list[nn.Parameter] = []
    for module in [inner for unit in units for inner in unit.modules()]:
        own = list(module.named_parameters(recurse=False))
        for name, weight in own:
            if weight.ndim > 1 and len(weight) > 1:
                adapter = LowRank(weight, rank)
                parametrize.register_parametrization(module, name, adapter)
                found += [adapter.down, adapter.up]
    return found


def merge_adapters(module: nn.Module) -> None:
    """Put what the adapters of a network learned into its matrices, and take the adapters away."""
    for inner in list(module.modules()):
        if parametrize.is_parametrized(inner):
            for name in list(cast("nn.ModuleDict", inner.parametrizations)):
                parametrize.remove_parametrizations(inner, name, leave_parametrized=True)
