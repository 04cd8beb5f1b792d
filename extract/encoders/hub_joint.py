"""Pictures and sound of a clip in one vector, by a model of transformers that reads both at once, such as PE-AV.

A clip is cut into four equal parts of its pictures and of its sound; of each the model gets as many frames as it reads,
spread evenly, and the sound, of a longer part the middle ten seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DecodeError
from ..contract import AudioNeed, FrameNeed, Pair, PairNeed
from .base import Spec, check_sound
from .hub_model import HubModel, from_folder, load_model, stored_json, width_of
from .hub_pictures import PROCESSORS, Form, form_of
from .torch_encoder import TorchEncoder

_PARTS = 4
_LONGEST = 10.0  # seconds of a part's sound
_SHORTEST = 20  # of a second, which is 50 ms, for each part


@dataclass(frozen=True)
class _Network:
    """The model with what its processor says."""

    hub: HubModel
    extractor: Any
    form: Form
    dim: int


class HubJoint(TorchEncoder):
    """The encoder of the pictures and the sound of each quarter of a clip to one vector: [4, D].

    A clip without pictures, or without sound, has none. The network is loaded at once, since it says what it reads.
    """

    batch_clips = 1
    gpu_clips = 4

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        network: _Network = self.network
        self.dim, self._length = network.dim, network.hub.frames or 1
        self._rate, form = int(network.extractor.sampling_rate), network.form
        self._side = form.side
        frames = FrameNeed(segments=_PARTS * self._length, size=form.whole, resize=form.resize)
        self.need = PairNeed(frames, AudioNeed(self._rate))
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (form.mean, form.std))
        self.preprocessing = (
            f"transformers {network.hub.model.config.model_type}, {_PARTS} parts of {self._length} frames and their "
            f"sound, rgb {form.whole} {form.resize}, centre {form.side}, mean {mean} std {std}, mono {self._rate} Hz, "
            f"at most {_LONGEST:g} s a part"
        )

    def prepare(self, raw: Any) -> Any:
        """Cut a pair of frames uint8 [4 L, 1, W, W, 3] and samples [n] to [4, L, S, S, 3] and [4, m].

        Raises DecodeError for frames of another form, or for less than 0.2 s of sound.
        """
        frames = super().prepare(raw.frames)
        if frames.shape[:2] != (_PARTS * self._length, 1):
            raise DecodeError(
                f"Encoder {self.name!r} needs {_PARTS * self._length} single frames, not {list(frames.shape[:2])}."
            )
        edge = (frames.shape[2] - self._side) // 2
        inner = slice(edge, edge + self._side)
        cut = np.ascontiguousarray(frames[:, 0, inner, inner])
        sound = check_sound(raw.sound, _PARTS * self._rate // _SHORTEST, self.name)
        return Pair(cut.reshape(_PARTS, self._length, *cut.shape[1:]), _parts_of(sound, self._rate))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        import torch

        from .torch_run import arithmetic

        with torch.inference_mode(), arithmetic(self.network.hub.device.type, self.spec.precision):
            return [embed(self.network, pair).float().cpu().numpy() for pair in batch]

    def _load(self) -> _Network:
        assert self.spec.weights is not None
        folder, hub = self.spec.weights.path, load_model(self.spec)
        extractor = from_folder("AutoFeatureExtractor", folder)
        network = _Network(hub, extractor, form_of(stored_json(folder, *PROCESSORS), self.name), 0)
        side, rate = network.form.side, int(extractor.sampling_rate)
        empty = Pair(np.zeros((1, hub.frames or 1, side, side, 3), np.uint8), np.zeros((1, rate), np.float32))
        return _Network(hub, extractor, network.form, width_of(self.name, lambda: embed(network, empty)))


def _parts_of(sound: np.ndarray, rate: int) -> np.ndarray:
    """The four equal parts [4, m] of samples [n], or their middles."""
    parts = sound[: len(sound) // _PARTS * _PARTS].reshape(_PARTS, -1)
    beyond = max(parts.shape[1] - round(_LONGEST * rate), 0)
    return np.ascontiguousarray(parts[:, beyond // 2 : parts.shape[1] - (beyond - beyond // 2)])


def embed(network: _Network, pair: Pair) -> Any:
    """The vectors [N, D] of N parts: frames uint8 [N, L, S, S, 3] with samples [N, m]."""
    import torch

    from .torch_run import normalised

    hub, form = network.hub, network.form
    frames = torch.from_numpy(pair.frames).to(hub.device)
    scale = tuple(255.0 * value for value in form.mean), tuple(255.0 * value for value in form.std)
    rate = network.extractor.sampling_rate
    heard = network.extractor(list(pair.sound), sampling_rate=rate, return_tensors="pt")
    pixels = normalised(frames, *scale).contiguous()
    return hub.embedding("pair")({"pixel_values_videos": pixels, "input_values": heard["input_values"]})
