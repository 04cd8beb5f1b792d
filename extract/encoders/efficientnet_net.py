"""EfficientNet-Lite as a torch network of MobileNetV2 blocks at EfficientNet's sizes.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite
variants drop squeeze-and-excitation, use ReLU6, and keep the stem, the head, and the depth of the first and
last stages unscaled.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

# Each stage has its kernel, repeats, channels out, expansion and the stride of the first block.
_STAGES = (
    (3, 1, 16, 1, 1),
    (3, 2, 24, 6, 2),
    (5, 2, 40, 6, 2),
    (3, 3, 80, 6, 2),
    (5, 3, 112, 6, 1),
    (5, 4, 192, 6, 2),
    (3, 1, 320, 6, 1),
)
SCALES = {"efficientnet-lite0": (1.0, 1.0), "efficientnet-lite2": (1.1, 1.2)}  # width, depth
_STEM, _HEAD, _EPS = 32, 1280, 1e-3


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The numbers of zeros before and after an axis that give ceil(size / stride) outputs (TensorFlow's SAME).

    An odd zero goes after.
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """A convolution whose padding depends on the size of its input."""

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[-2], kernel, stride)
        left, right = same_padding(x.shape[-1], kernel, stride)
        if (top, left) == (bottom, right) and top == left:  # The convolution's own padding saves a copy.
            return F.conv2d(x, self.weight, self.bias, self.stride, top, 1, self.groups)
        return F.conv2d(
            F.pad(x, (left, right, top, bottom)), self.weight, self.bias, self.stride, 0, 1, self.groups
        )


def _unit(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](
        conv=SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
        norm=nn.BatchNorm2d(outputs, eps=_EPS),
    )
    if act:
        layers["act"] = nn.ReLU6(inplace=True)
    return nn.Sequential(layers)


class _Block(nn.Module):
    """A block that expands by 1x1, filters each channel and projects by 1x1; the input is added if the shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _unit(inputs, wide) if expansion > 1 else nn.Identity()
        self.depthwise = _unit(wide, wide, kernel, stride, groups=wide)
        self.project = _unit(wide, outputs, act=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLiteNet(nn.Module):
    """The network from pictures float32 [N, 3, S, S] to pooled features [N, 1280].

    ``classifier`` maps the features to 1000 ImageNet logits.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = _unit(3, _STEM, 3, 2)
        blocks: list[nn.Module] = []
        inputs = _STEM
        for i, (kernel, repeats, channels, expansion, stride) in enumerate(_STAGES):
            outputs = _round_to_8(channels * width)
            count = repeats if i in (0, len(_STAGES) - 1) else math.ceil(repeats * depth)
            for j in range(count):
                blocks.append(
                    _Block(
                        inputs=inputs,
                        outputs=outputs,
                        kernel=kernel,
                        stride=stride if j == 0 else 1,
                        expansion=expansion,
                    )
                )
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = _unit(inputs, _HEAD)
        self.classifier = nn.Linear(_HEAD, 1000)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.head(self.blocks(self.stem(x)))
        return features.mean((-2, -1))


def _round_to_8(channels: float) -> int:
    """The number of channels rounded to the nearest multiple of 8, never more than a tenth below."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def rename(key: str) -> str:
    """Turn a checkpoint's name of a weight (``_blocks.3._bn1.weight``) into this network's name of it
    (``blocks.3.depthwise.norm.weight``).
    """
    if key.startswith("_blocks."):
        _, index, layer, tensor = key.split(".")
        places = {
            "_expand_conv": "expand.conv",
            "_bn0": "expand.norm",
            "_depthwise_conv": "depthwise.conv",
            "_bn1": "depthwise.norm",
            "_project_conv": "project.conv",
            "_bn2": "project.norm",
        }
        return f"blocks.{index}.{places.get(layer, layer)}.{tensor}"
    layer, _, tensor = key.partition(".")
    places = {
        "_conv_stem": "stem.conv",
        "_bn0": "stem.norm",
        "_conv_head": "head.conv",
        "_bn1": "head.norm",
        "_fc": "classifier",
    }
    return f"{places.get(layer, layer)}.{tensor}"


def fold_norms(network: nn.Module) -> None:
    """Multiply each normalisation into the convolution before it, for inference; the network's function stays."""
    for unit in list(network.modules()):
        conv = getattr(unit, "conv", None)
        norm = getattr(unit, "norm", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            assert norm.running_var is not None
            assert norm.running_mean is not None
            scale = norm.weight.data * (norm.running_var + norm.eps).rsqrt()
            conv.weight.data.mul_(scale[:, None, None, None])
            conv.bias = nn.Parameter(norm.bias.data - norm.running_mean * scale)
            unit.norm = nn.Identity()
