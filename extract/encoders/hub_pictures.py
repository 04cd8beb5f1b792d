"""Picture and video models of the library transformers: CLIP, SigLIP, DINO; VideoMAE, V-JEPA 2, X-CLIP, PE-AV's video.

A model that reads several frames at once gets windows of them, any other one frame a segment. Size, squash or crop,
mean and standard deviation are those of the processor that lies beside the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DecodeError, WeightsError
from ..contract import FrameNeed
from .base import Spec
from .hub_model import load_model, stored_json, width_of
from .torch_encoder import TorchEncoder

_WINDOWS, _SPAN = 4, 64  # windows of a clip, and the source frames that one spans
PROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Form:
    """How frames are made: squashed or cropped to ``whole`` px, of which the centre of ``side`` px is read."""

    whole: int
    side: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class HubPictures(TorchEncoder):
    """The encoder of frames, or of 4 windows of frames, to the model's vectors [T, D].

    The network is loaded at once, since it says what it reads.
    """

    batch_clips = 2
    gpu_clips = 16

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        hub, self._form, self.dim = self.network
        self._length = hub.frames or 1
        if hub.frames:
            self.cpu_items, self.gpu_items = 1, 16
            stride = max(_SPAN // hub.frames, 1)
            self.need = FrameNeed(
                segments=_WINDOWS,
                length=hub.frames,
                stride=stride,
                size=self._form.whole,
                resize=self._form.resize,
            )
        else:
            self.need = FrameNeed(size=self._form.whole, resize=self._form.resize)
        mean, std = (
            " ".join(f"{value:g}" for value in values) for values in (self._form.mean, self._form.std)
        )
        self.preprocessing = (
            f"transformers {hub.model.config.model_type}, rgb {self._form.whole} {self._form.resize}, centre "
            f"{self._form.side}, mean {mean} std {std}"
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Cut frames uint8 [T, L, W, W, 3] to their centre [T, L, S, S, 3]. Raises DecodeError for another L."""
        frames = super().prepare(raw)
        if frames.shape[1] != self._length:
            raise DecodeError(
                f"Encoder {self.name!r} needs {self._length} frames a window, not {frames.shape[1]}."
            )
        edge = (frames.shape[2] - self._form.side) // 2
        inner = slice(edge, edge + self._form.side)
        return np.ascontiguousarray(frames[:, :, inner, inner])

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return self._run(self._forward, batch, self.network[0].device)

    def _forward(self, windows: Any) -> Any:
        hub, form, _ = self.network
        return embed(hub, windows, form)

    def _load(self) -> Any:
        import torch

        hub = load_model(self.spec)
        assert self.spec.weights is not None
        form = form_of(stored_json(self.spec.weights.path, *PROCESSORS), self.name)
        empty = torch.zeros(1, hub.frames or 1, form.side, form.side, 3, dtype=torch.uint8)
        return hub, form, width_of(self.name, lambda: embed(hub, empty.to(hub.device), form))


def embed(hub: Any, windows: Any, form: Form) -> Any:
    """The vectors [N, D] of frames uint8 [N, L, S, S, 3] on the model's device."""
    from inspect import signature

    from .torch_run import normalised

    kind = "video" if hub.frames else "picture"
    scale = tuple(255.0 * value for value in form.mean), tuple(255.0 * value for value in form.std)
    pixels = normalised(windows, *scale)
    accepted = signature(hub.entrance(kind)).parameters
    name = "pixel_values_videos" if "pixel_values_videos" in accepted else "pixel_values"
    return hub.embedding(kind)({name: (pixels if hub.frames else pixels[:, 0]).contiguous()})


def form_of(config: Mapping[str, Any], name: str) -> Form:
    """The form of frames that a processor's configuration asks for.

    Raises WeightsError for frames that are not square, or without mean and standard deviation.
    """
    config = config.get("video_processor") or config.get("image_processor") or config
    size, crop = config.get("size") or {}, config.get("crop_size") or {}
    try:
        mean, std = (tuple(map(float, config[key])) for key in ("image_mean", "image_std"))
        if "shortest_edge" in size:
            whole, resize = int(size["shortest_edge"]), "crop"
        else:
            whole, resize = int(size["height"]), "squash"
            if int(size["width"]) != whole:
                raise KeyError("a square size")
        side = whole
        if config.get("do_center_crop") and crop:
            side = int(crop["height"])
            if int(crop["width"]) != side or side > whole:
                raise KeyError("a square crop within the frame")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"The processor of encoder {name!r} does not say {error}; only square frames that are cropped or squashed "
            "can be made."
        ) from None
    return Form(whole=whole, side=side, resize=resize, mean=mean, std=std)
