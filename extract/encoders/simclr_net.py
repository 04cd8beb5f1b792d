"""The residual networks of SimCLRv2, with selective kernels, widths and the three-layer projection head.

Chen et al., "Big Self-Supervised Models are Strong Semi-Supervised Learners", NeurIPS 2020; selective kernels: Li et
al., "Selective Kernel Networks", CVPR 2019; the stem and the shortcuts of networks with selective kernels: He et al.,
"Bag of Tricks for Image Classification with Convolutional Neural Networks", CVPR 2019. Paddings are those of the
published TensorFlow code, which differ from torch's where a side is even.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
WIDTH = 64  # channels of the first group at width 1
SHARE = 0.0625  # channels of the mixing layer of selective kernels, as a share of the block's
_LEAST_MIXING = 32
PROJECTED = 128
LAYERS = 3


@dataclass(frozen=True)
class Form:
    """The form of a network: its depth, the multiple of its width, and whether its kernels are selective."""

    depth: int
    width: int
    selective: bool

    @property
    def dim(self) -> int:
        """The width of its features."""
        return 32 * WIDTH * self.width


class SimClrNet(nn.Module):
    """The network with its projection head.

    Modules are made in the order in which the published code makes its variables, by which its checkpoints are read.
    """

    def __init__(self, form: Form) -> None:
        super().__init__()
        first = WIDTH * form.width
        self.stem = _stem(first, selective=form.selective)
        groups, width = [], first
        for number, count in enumerate(BLOCKS[form.depth]):
            inner = first * 2**number
            for place in range(count):
                stride = 2 if number and not place else 1
                groups.append(Bottleneck(width, inner, stride, selective=form.selective, projects=not place))
                width = 4 * inner
        self.blocks = nn.Sequential(*groups)
        self.head = nn.ModuleList(
            _projection(width, PROJECTED if last else width, last=last)
            for last in (layer == LAYERS - 1 for layer in range(LAYERS))
        )

    def forward(self, pictures: Tensor, layer: int = 0) -> Tensor:
        """The features [N, D] of pictures [N, 3, S, S] in [0, 1], or the output of layer 1, 2 or 3 of the head."""
        x = _end_padded(self.stem(pictures), 3, value=-torch.inf)
        x = self.blocks(F.max_pool2d(x, 3, 2)).mean((2, 3))
        for projection in list(self.head)[:layer]:
            x = projection(x)
        return x


class Bottleneck(nn.Module):
    """One block; of the first of a group the shortcut is projected."""

    def __init__(self, width: int, inner: int, stride: int, *, selective: bool, projects: bool) -> None:
        super().__init__()
        self.stride, self.selective = stride, selective
        self.shortcut: nn.Module | None = None
        if projects:
            self.shortcut = nn.Sequential(
                _conv(width, 4 * inner, 1, 1 if selective else stride), _norm(4 * inner)
            )
        self.before = nn.Sequential(_conv(width, inner, 1), _norm(inner), nn.ReLU())
        self.middle: nn.Module
        if selective:
            self.middle = SelectiveKernel(inner, stride)
        else:
            self.middle = nn.Sequential(_conv(inner, inner, 3, stride), _norm(inner), nn.ReLU())
        self.after = nn.Sequential(_conv(inner, 4 * inner, 1), _norm(4 * inner))

    def forward(self, x: Tensor) -> Tensor:
        short = x
        if self.shortcut is not None:
            short = self.shortcut(self._smaller(x) if self.selective else x)
        return torch.relu(self.after(self.middle(self.before(x))) + short)

    def _smaller(self, x: Tensor) -> Tensor:
        """Averages over 2 x 2: zeros beyond the edge count where the side is halved, and nothing there otherwise."""
        padded = F.pad(x, (0, 1, 0, 1))
        if self.stride > 1:
            return F.avg_pool2d(padded, 2, self.stride)
        inside = F.avg_pool2d(F.pad(torch.ones_like(x[:1, :1]), (0, 1, 0, 1)), 2, 1)
        return F.avg_pool2d(padded, 2, 1) / inside


class SelectiveKernel(nn.Module):
    """Two streams of 3 x 3 filters, mixed channel by channel with weights that the whole picture gives."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        mixing = max(int(channels * SHARE), _LEAST_MIXING)
        self.streams = nn.Sequential(_conv(channels, 2 * channels, 3, stride), _norm(2 * channels), nn.ReLU())
        self.mixing = nn.Sequential(
            _conv(channels, mixing, 1), _norm(mixing), nn.ReLU(), _conv(mixing, 2 * channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        streams = self.streams(x).unflatten(1, (2, -1))
        weights = self.mixing(streams.sum(1).mean((2, 3), keepdim=True)).unflatten(1, (2, -1)).softmax(1)
        return (streams * weights).sum(1)


def _stem(first: int, *, selective: bool) -> nn.Sequential:
    """The layers before the pooling: one of 7 x 7 filters, or three of 3 x 3."""
    if not selective:
        return nn.Sequential(_conv(3, first, 7, 2), _norm(first), nn.ReLU())
    half = first // 2
    steps = [(3, half, 2), (half, half, 1), (half, first, 1)]
    return nn.Sequential(
        *(layer for a, b, stride in steps for layer in (_conv(a, b, 3, stride), _norm(b), nn.ReLU()))
    )


def _projection(width: int, out: int, *, last: bool) -> nn.Sequential:
    layers = [nn.Linear(width, out, bias=False), nn.BatchNorm1d(out)]
    return nn.Sequential(*layers, *([] if last else [nn.ReLU()]))


def _conv(width: int, out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(width, out, size, stride, padding=size // 2, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)  # torch's eps of 1e-5 is that of the published code.


def _end_padded(x: Tensor, size: int, value: float) -> Tensor:
    """The maps padded as for a window of that ``size`` with stride 2, where an odd rest is put at the end."""
    wanted = [max((-(-side // 2) - 1) * 2 + size - side, 0) for side in x.shape[-2:]]
    high, wide = wanted
    return F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2), value=value)
