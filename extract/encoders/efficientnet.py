"""EfficientNet-Lite picture encoders (ImageNet), float in torch and int8 in TensorFlow Lite for machines
without a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import DecodeError
from ..contract import FrameNeed
from .base import BaseEncoder, Spec
from .torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from .tunable import Tunable

SIZES = {"efficientnet-lite0": 224, "efficientnet-lite2": 260}
_MEAN, _STD = (127.0,) * 3, (128.0,) * 3  # the Lite networks' own; ImageNet's mean and std cost five points


class EfficientNetLite(TorchEncoder):
    """The encoder of frames to the pooled 1280 features before the classifier, one vector a frame: [T, 1280]."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=SIZES[spec.name])
        self.preprocessing = f"rgb {self.need.size} crop, (x-127)/128"

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 1, S, S, 3] into [T, S, S, 3]. Raises DecodeError for another form."""
        return first_frames(super().prepare(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        forward, device = self.network
        return self._run(forward, batch, device)

    def tunable(self) -> Tunable:
        """The network as it can be tuned, with its normalisations folded into convolutions, as extraction has it."""
        from .tunable import Tunable, units_of

        forward, device = self.network
        network = forward.module
        units = units_of([network.stem, network.blocks, network.head])
        return Tunable(forward=forward, units=units, device=device)

    def _load(self) -> Any:
        return load_forward(self.spec, self.spec.name)


class EfficientNetLiteInt8(BaseEncoder):
    """The int8 EfficientNet-Lite0, whose features [T, 1280] are coarser and four times as fast on a CPU."""

    preprocessing = "rgb 224 crop, uint8"
    _POOLED = 161

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=224)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 1, S, S, 3] into [T, S, S, 3]. Raises DecodeError for another form."""
        return first_frames(super().prepare(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [np.stack([self.network(frame).reshape(self.dim) for frame in clip]) for clip in batch]

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights, tensor=self._POOLED)


def first_frames(frames: np.ndarray) -> np.ndarray:
    """Turn frames [T, L, S, S, 3] into [T, S, S, 3] for picture encoders, whose segments have one frame.

    Raises DecodeError for longer segments.
    """
    if frames.shape[1] != 1:
        raise DecodeError(f"A picture encoder takes one frame a segment, not {frames.shape[1]}.")
    return frames[:, 0]


def load_forward(spec: Spec, variant: str) -> Any:
    """The (forward, device) of an EfficientNet-Lite ``variant``, where forward takes uint8 [N, S, S, 3].

    A checkpoint may have its normalisations folded into convolutions already, as that of a tuned network has. Raises
    WeightsError if the weights do not fit.
    """
    from ...machine.device import pick_device
    from ..weights.checkpoint import fill, read_checkpoint
    from .efficientnet_net import SCALES, EfficientNetLiteNet, fold_norms, rename
    from .frames_to_features import FramesToFeatures
    from .torch_run import normalised

    assert spec.weights is not None
    device = pick_device(spec.device)
    network = EfficientNetLiteNet(*SCALES[variant])
    state = {rename(key): value for key, value in read_checkpoint(spec.weights.path).items()}
    folded = "stem.conv.bias" in state
    if folded:
        fold_norms(network)
    fill(network, state, spec.weights.path)
    if not folded:
        fold_norms(network)
    network.eval().to(device)

    def enter(frames: Any) -> Any:
        pictures = normalised(frames, _MEAN, _STD)
        # With channels last, an H200 took 0.6 s for 256 frames in bfloat16, five times as long as for a ViT-L;
        # depthwise convolutions are the likely cause.
        return pictures.contiguous() if device.type == "cuda" else pictures

    return FramesToFeatures(module=network, enter=enter, features=network), device
