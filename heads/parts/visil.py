"""The small convolutional network of ViSiL (Kordopatis-Zilos et al., ICCV 2019) over step similarities of two clips."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_STEPS = 4
"""The fewest steps of a clip that leave something after both poolings."""


class ViSiL(nn.Module):
    """Similarities [..., I, J] become refined ones [..., I // 4, J // 4] in [-1, 1].

    3x3 convolutions 1 -> 32 -> 64 -> 128 without biases, the first two each with a maximum over blocks of two by two
    and a ReLU behind it, then a 1x1 convolution to one map, clamped. With ``start`` one channel carries the
    similarities through and the others weigh nothing in the end, so that the untrained network is the best of each
    block of four by four (where it is positive).
    """

    def __init__(self, *, start: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.second = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.third = nn.Conv2d(64, 128, 3, padding=1, bias=False)
        self.last = nn.Conv2d(128, 1, 1, bias=False)
        if start:
            for layer in (self.first, self.second, self.third):
                _carry(layer.weight.data)
            nn.init.zeros_(self.last.weight)
            self.last.weight.data[0, 0] = 1.0

    def forward(self, similarity: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Refined similarities, and which of their rows and columns count.

        rows: bool [..., I], columns: bool [..., J], the first so many true. What lies beyond a clip is zero before
        every convolution, as if the matrix had been cut there.
        """
        pairs, dtype = similarity.shape[:-2], similarity.dtype
        rows, columns = rows.expand(*pairs, -1), columns.expand(*pairs, -1)
        x = similarity.flatten(0, -3)[:, None].to(self.first.weight.dtype)
        for layer in (self.first, self.second):
            x = F.max_pool2d(layer(_kept(x, rows, columns)), 2).relu()
            rows, columns = (
                rows[..., 1::2],
                columns[..., 1::2],
            )  # a pooled cell counts where both its steps do
        x = self.last(self.third(_kept(x, rows, columns))).clamp(-1, 1)
        return x.squeeze(1).to(dtype).unflatten(0, pairs), rows, columns


def _kept(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """x [M, C, I, J] with zeros beyond the M pairs' valid rows and columns."""
    counted = rows.flatten(0, -2)[:, :, None] & columns.flatten(0, -2)[:, None]
    return x * counted[:, None].to(x.dtype)


def _carry(weight: Tensor) -> None:
    """Makes the first channel of a 3x3 convolution [out, in, 3, 3] that of its input, in place."""
    weight[0] = torch.zeros_like(weight[0])
    weight[0, 0, 1, 1] = 1.0
