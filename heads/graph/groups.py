"""Relations of groups of channels, which stand beside the one relation of whole nodes in GNN and EGNN."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ...errors import UsageError
from .blocks import Pointwise, pair_values


class GroupRelations(nn.Module):
    """The channels of nodes [G, n, D] in ``heads`` groups, each of which has a relation of its own.

    A group's relation is a net of |x_i - x_j| over its channels alone, whose output starts at zero. Where D is no
    multiple of the number of groups, the first groups have one channel more.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads > width:
            raise UsageError(f"heads={heads} is more than the {width} channels of a node; choose fewer.")
        self.heads = heads
        groups = torch.empty(width).tensor_split(heads)
        self.nets = [Pointwise(len(group), [2 * len(group), len(group)], out=1) for group in groups]
        for net in self.nets:
            net.zero_output()
        self.net = nn.ModuleList(self.nets)

    def logits(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """For each group, its channels [G, n, D/heads] of nodes x [G, n, D] and its plain relation [G, n, n]."""
        for net, group in zip(self.nets, x.tensor_split(self.heads, -1)):
            yield group, pair_values(net, group)


def relations_of(width: int, heads: int) -> GroupRelations | None:
    """The relations of ``heads`` groups of ``width`` channels; None for no groups."""
    return GroupRelations(width, heads) if heads else None
