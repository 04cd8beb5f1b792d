"""3D networks by pytorchvideo (Kinetics-400): X3D-S and SlowFast R50, from a hub checkpoint or a local file.

Feichtenhofer, "X3D: Expanding Architectures for Efficient Video Recognition", CVPR 2020; Feichtenhofer et
al., "SlowFast Networks for Video Recognition", ICCV 2019.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DecodeError
from ..contract import FrameNeed
from ..weights.torchvision_care import ensure_torchvision
from .base import Spec
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from .tunable import Tunable

_MEAN, _STD = (0.45 * 255,) * 3, (0.225 * 255,) * 3
_SEGMENTS = 4


@dataclass(frozen=True)
class Variant:
    """One network and its input.

    length, stride, size: the sampling that the network was trained with, for clips of about 30 frames a second.
    slow: frames of the second, slower pathway; 0 if the network has only one.
    """

    module: str
    builder: str
    length: int
    stride: int
    size: int
    slow: int = 0


VARIANTS = {
    "x3d-s": Variant(module="x3d", builder="x3d_s", length=13, stride=6, size=182),
    "slowfast-r50": Variant(module="slowfast", builder="slowfast_r50", length=32, stride=2, size=256, slow=8),
}


class Video3d(TorchEncoder):
    """The encoder of four windows spread over the clip, averaged over space and time before the classifier: [4, D].

    D is 192 (X3D-S) or 2304 (SlowFast: 2048 slow and 256 fast channels).
    """

    batch_clips = 2
    cpu_items = 1
    gpu_items = 16
    gpu_clips = 16

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.variant = self._variant()
        v = self.variant
        self.need = FrameNeed(segments=_SEGMENTS, length=v.length, stride=v.stride, size=v.size)
        self.preprocessing = (
            f"{_SEGMENTS} windows of {v.length}x{v.stride} frames, rgb {v.size} crop, mean .45 std .225"
        )

    def _variant(self) -> Variant:
        return VARIANTS[self.spec.name]

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """The frames uint8 [T, L, S, S, 3], unchanged. Raises DecodeError if L is not the network's."""
        frames = super().prepare(raw)
        if frames.shape[1] != self.variant.length:
            raise DecodeError(
                f"Encoder {self.name!r} needs {self.variant.length} frames a window, not {frames.shape[1]}."
            )
        return frames

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        forward, device, _ = self.network
        return self._run(forward, batch, device)

    def tunable(self) -> Tunable:
        """The network as it can be tuned; its units are all before the classifier."""
        from .tunable import Tunable, units_of

        forward, device, _ = self.network
        return Tunable(forward=forward, units=units_of(before_classifier(forward.module)), device=device)

    def _load(self) -> Any:
        import torch

        from ...machine.device import pick_device
        from ..weights.checkpoint import fill, read_checkpoint
        from .frames_to_features import FramesToFeatures
        from .torch_run import normalised

        assert self.spec.weights is not None
        path = self.spec.weights.path
        device = pick_device(self.spec.device)
        model = build_model(self.variant)
        fill(model, read_checkpoint(path, nests=("model_state",)), path)
        embed, width = self._embedding(model.eval().to(device))
        places = np.linspace(0, self.variant.length - 1, self.variant.slow).astype(
            np.int64
        )  # The network was trained with these values.
        slow = torch.from_numpy(places).to(device)

        def enter(windows: Any) -> Any:
            x = normalised(windows, _MEAN, _STD).transpose(1, 2).contiguous()
            # SlowFast's blocks write into the list that they are given, so it is made anew for each call.
            return [x[:, :, slow].contiguous(), x] if len(slow) else x

        return FramesToFeatures(module=model, enter=enter, features=embed), device, width

    def _embedding(self, model: Any) -> tuple[Callable[[Any], Any], int]:
        """What turns the network's inputs into embeddings [N, D], and D."""

        def embed(inputs: Any) -> Any:
            for block in model.blocks[:-1]:
                inputs = block(inputs)
            return inputs.mean((-3, -2, -1))

        return embed, self.dim


def before_classifier(model: Any) -> list[Any]:
    """The parts of a network of pytorchvideo before its classifier, in order."""
    if hasattr(model, "head"):
        return [child for name, child in model.named_children() if name != "head"]
    return list(model.blocks)[:-1]


def build_model(variant: Variant) -> Any:
    """The network with random weights."""
    ensure_torchvision()
    return getattr(importlib.import_module(f"pytorchvideo.models.hub.{variant.module}"), variant.builder)(
        pretrained=False
    )
