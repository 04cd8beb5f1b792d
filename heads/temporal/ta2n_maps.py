"""TA2N on feature maps: what its two stages do with the pixels of a frame (Li et al., AAAI 2022).

Shapes: T steps, C channels, H x H pixels flattened to one axis.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

REACH = 0.75  # the largest predicted offset, in half frame widths
SPREAD = 0.2  # how far the nine windows that are averaged lie apart


class MapLocaliser(nn.Module):
    """Two blocks of 3-d convolution, batch norm, pooling by two and ReLU; the maximum over all that remains."""

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first, self.second = nn.Conv3d(dim, 64, 3, padding=1), nn.Conv3d(64, 128, 3, padding=1)
        self.first_norm, self.second_norm = nn.BatchNorm3d(64), nn.BatchNorm3d(128)
        self.pool = nn.MaxPool3d(2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features [..., 128] of clips x [..., T, C, H*H] (zero beyond their length) of at least four steps.

        mask: bool [..., T], the valid steps, as localisers of sequences read them; it is not needed here.
        """
        maps = x.flatten(0, -4).transpose(1, 2).unflatten(-1, (self.side, self.side))
        maps = torch.relu(self.pool(self.first_norm(self.first(maps))))
        maps = torch.relu(self.pool(self.second_norm(self.second(maps))))
        return maps.flatten(2).amax(-1).unflatten(0, x.shape[:-3])


class Windows(NamedTuple):
    """Support and query of every pair pooled through their windows, [B, N, Q, T, C] each."""

    support: Tensor
    query: Tensor


class SpatialCoordination(nn.Module):
    """From a pair of clips an offset for each step; the support is pooled through windows moved by it, the query by
    its opposite. Nine windows, the offset plus {-1, 0, 1}^2 * 0.2, are averaged, in training and after.
    """

    perturbation: Tensor

    def __init__(self, dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.first, self.second = nn.Conv3d(2 * dim, 128, 3, padding=1), nn.Conv3d(128, 128, 3, padding=1)
        self.first_norm, self.second_norm = nn.BatchNorm3d(128), nn.BatchNorm3d(128)
        self.pool = nn.MaxPool3d((1, 2, 2))
        self.hidden, self.out = nn.Linear(128, 64), nn.Linear(64, 2)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        one = torch.tensor([-1.0, 0.0, 1.0]) * SPREAD
        self.register_buffer("perturbation", torch.cartesian_prod(one, one))

    def forward(self, support: Tensor, query: Tensor) -> Windows:
        """Support and query [B, N, Q, T, C, H*H] of every pair through their windows."""
        offset = self.offsets(support, query)
        return Windows(self.pooled(support, offset, 1), self.pooled(query, offset, -1))

    def offsets(self, support: Tensor, query: Tensor) -> Tensor:
        """Offsets (column, row) [B, N, Q, T, 2] of support and query [B, N, Q, T, C, H*H]."""
        both = torch.cat([support, query], -2).flatten(0, 2).transpose(1, 2)
        maps = both.unflatten(-1, (self.side, self.side))
        maps = torch.relu(self.pool(self.first_norm(self.first(maps))))
        maps = torch.relu(self.pool(self.second_norm(self.second(maps))))
        seen = maps.flatten(3).amax(-1).transpose(1, 2)
        offset = torch.tanh(self.out(torch.relu(self.hidden(seen)))) * REACH
        return offset.unflatten(0, support.shape[:3])

    def pooled(self, x: Tensor, offset: Tensor, sign: int) -> Tensor:
        """Means [..., T, C] of x [..., T, C, H*H] through the windows at sign * (offset + perturbation)."""
        moved = sign * (offset[..., None, :] + self.perturbation.to(x.dtype))  # [..., T, 9, 2]
        column, row = self._tent(moved[..., 0]), self._tent(moved[..., 1])
        window = row[..., :, None] * column[..., None, :]
        window = window / window.sum((-1, -2), keepdim=True)
        return torch.einsum("...cp,...p->...c", x, window.mean(-3).flatten(-2))

    def _tent(self, offset: Tensor) -> Tensor:
        """Weights [..., H] along one axis: one inside the moved frame, falling to zero within a pixel outside it."""
        grid = torch.linspace(-1, 1, self.side, device=offset.device, dtype=offset.dtype)
        outside = ((grid + offset[..., None]).abs() - 1).clamp(min=0)
        return torch.relu(1 - outside * (self.side - 1) / 2)
