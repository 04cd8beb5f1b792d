"""Inception-v1 inflated to 3D (I3D) as a torch network, with TensorFlow's SAME padding everywhere.

Carreira and Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .efficientnet_net import same_padding

_EPS = 1e-3
# The channels of each block are those of 1x1 | 1x1 then 3x3 | 1x1 then 3x3 | 1x1 after pooling.
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
FEATURES, CLASSES = 1024, 400


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last three axes of ``x`` so that the strided window yields ceil(size / stride) outputs."""
    pads = [same_padding(size, k, s) for size, k, s in zip(x.shape[-3:], kernel, stride)]
    flat = [p for pair in reversed(pads) for p in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


class Unit(nn.Conv3d):
    """A convolution, which has a bias since its normalisation is folded in, and ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size, self.stride
        pads = [same_padding(size, k, s) for size, k, s in zip(x.shape[-3:], kernel, stride)]
        if all(before == after for before, after in pads):  # The convolution's own padding saves a copy.
            return F.conv3d(x, self.weight, self.bias, self.stride, [before for before, _ in pads]).relu_()
        return F.conv3d(pad_same(x, kernel, stride), self.weight, self.bias, self.stride).relu_()


class Pool(nn.Module):
    """The maximum over a window with SAME padding that is never the maximum."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(pad_same(x, self.kernel, self.stride, -float("inf")), self.kernel, self.stride)


class Mixed(nn.Module):
    """A block of four branches, which are joined along the channels."""

    def __init__(self, inputs: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        one, down3, three, down5, five, pooled = channels
        self.Branch_0 = nn.ModuleDict({"Conv3d_0a_1x1": Unit(inputs, one, 1)})
        self.Branch_1 = nn.ModuleDict(
            {"Conv3d_0a_1x1": Unit(inputs, down3, 1), "Conv3d_0b_3x3": Unit(down3, three, 3)}
        )
        self.Branch_2 = nn.ModuleDict(
            {"Conv3d_0a_1x1": Unit(inputs, down5, 1), "Conv3d_0b_3x3": Unit(down5, five, 3)}
        )
        self.Branch_3 = nn.ModuleDict({"Conv3d_0b_1x1": Unit(inputs, pooled, 1)})
        self.pool = Pool((3, 3, 3), (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        first = self.Branch_0["Conv3d_0a_1x1"](x)
        second = self.Branch_1["Conv3d_0b_3x3"](self.Branch_1["Conv3d_0a_1x1"](x))
        third = self.Branch_2["Conv3d_0b_3x3"](self.Branch_2["Conv3d_0a_1x1"](x))
        fourth = self.Branch_3["Conv3d_0b_1x1"](self.pool(x))
        return torch.cat((first, second, third, fourth), dim=1)


class I3DNet(nn.Module):
    """The network from clips float32 [N, C, T, H, W] in [-1, 1] to features [N, ceil(T / 8), 1024], averaged
    over space but not over time. C is 3 for pictures and 2 for flow.
    """

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.body = nn.ModuleDict(
            {
                "Conv3d_1a_7x7": Unit(channels, 64, 7, stride=2),
                "MaxPool3d_2a_3x3": Pool((1, 3, 3), (1, 2, 2)),
                "Conv3d_2b_1x1": Unit(64, 64, 1),
                "Conv3d_2c_3x3": Unit(64, 192, 3),
                "MaxPool3d_3a_3x3": Pool((1, 3, 3), (1, 2, 2)),
                "Mixed_3b": Mixed(*MIXED["Mixed_3b"]),
                "Mixed_3c": Mixed(*MIXED["Mixed_3c"]),
                "MaxPool3d_4a_3x3": Pool((3, 3, 3), (2, 2, 2)),
                **{name: Mixed(*MIXED[name]) for name in MIXED if name.startswith("Mixed_4")},
                "MaxPool3d_5a_2x2": Pool((2, 2, 2), (2, 2, 2)),
                "Mixed_5b": Mixed(*MIXED["Mixed_5b"]),
                "Mixed_5c": Mixed(*MIXED["Mixed_5c"]),
            }
        )
        self.classifier = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body.values():
            x = layer(x)
        return x.mean((-2, -1)).transpose(1, 2)


def from_flax(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The tensors of :class:`I3DNet` from flax's ``params/...`` and ``batch_stats/...``, with the normalisation
    folded in.

    flax's kernels are [t, h, w, in, out]; its normalisation has a bias but no scale. Raises KeyError if an array is
    missing.
    """
    state: dict[str, Tensor] = {}
    for name, kernel in arrays.items():
        if not (name.startswith("params/") and name.endswith("/Conv_0/kernel")):
            continue
        unit = name.removeprefix("params/").removesuffix("/Conv_0/kernel")
        if unit.startswith("Logits"):
            state["classifier.weight"] = _tensor(kernel.reshape(FEATURES, CLASSES).T)
            state["classifier.bias"] = _tensor(arrays[f"params/{unit}/Conv_0/bias"])
            continue
        scale = 1.0 / np.sqrt(
            arrays[f"batch_stats/{unit}/BatchNorm_0/var"].reshape(-1).astype(np.float64) + _EPS
        )
        mean = arrays[f"batch_stats/{unit}/BatchNorm_0/mean"].reshape(-1)
        bias = arrays[f"params/{unit}/BatchNorm_0/bias"].reshape(-1)
        place = "body." + unit.replace("/", ".")
        state[f"{place}.weight"] = _tensor((kernel * scale).transpose(4, 3, 0, 1, 2))
        state[f"{place}.bias"] = _tensor(bias - mean * scale)
    return state


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))
