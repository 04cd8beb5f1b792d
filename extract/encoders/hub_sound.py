"""Sound models of the library transformers: CLAP, AST, wav2vec 2.0, WavLM, HuBERT, the encoder of Whisper, PE-AV's.

Sound is cut into windows as for all encoders of sound (sound_windows.py), which overlap by half unless told otherwise.
``#SECONDS`` after the model's name asks for windows of that length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import UsageError
from .base import Spec, per_clip
from .hub_model import HubModel, from_folder, load_model, width_of
from .sound_windows import MAX_WINDOWS, SoundEncoder
from .torch_encoder import TorchEncoder

_WINDOWS = {"clap": 10.0, "audio-spectrogram-transformer": 10.0, "whisper": 5.0}
_WINDOW = 2.0  # seconds of a window of any other model
_LEAST = 0.1  # seconds of a window that any model can read
_CHUNK = 4


class HubSound(SoundEncoder, TorchEncoder):
    """The encoder of sound to one vector for each window: [n, D].

    The network is loaded at once, since it says which rate it reads and how long a window may be.
    """

    batch_clips = 2
    gpu_clips = 16

    def __init__(self, spec: Spec) -> None:
        hub, extractor, dim = self._network_of(spec)
        self.rate = int(extractor.sampling_rate)
        self.window = round(_seconds(hub.model.config.model_type, extractor, spec) * self.rate)
        self.usual_hop = max(self.window // 2, 1)
        self.kind = str(hub.model.config.model_type)
        super().__init__(spec)
        self._loaded, self.dim = (hub, extractor, dim), dim

    def described(self) -> str:
        return (
            f"transformers {self.kind}, mono {self.rate} Hz, windows of {self.window} samples every {self.hop}, at "
            f"most {MAX_WINDOWS} spread evenly, last padded"
        )

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        import torch

        from .torch_run import arithmetic

        windows = np.concatenate(list(batch))
        parts = [windows[start : start + _CHUNK] for start in range(0, len(windows), _CHUNK)]
        with torch.inference_mode(), arithmetic(self.network[0].device.type, self.spec.precision):
            rows = [self._vectors(part) for part in parts]
        return per_clip(np.concatenate(rows), batch)

    def _vectors(self, windows: np.ndarray) -> np.ndarray:
        """The vectors [N, D] of N windows, which are filled up to a whole chunk: rounding depends on its size."""
        hub, extractor, _ = self.network
        whole = np.concatenate([windows, np.zeros((_CHUNK - len(windows), windows.shape[1]), np.float32)])
        found = embed(hub, extractor, whole)
        return found[: len(windows)].float().cpu().numpy()

    def _load(self) -> Any:
        return self._network_of(self.spec)

    @staticmethod
    def _network_of(spec: Spec) -> tuple[HubModel, Any, int]:
        """The model, its feature extractor, and the width of its vectors. Raises WeightsError."""
        hub = load_model(spec)
        assert spec.weights is not None
        extractor = from_folder("AutoFeatureExtractor", spec.weights.path)
        silence = np.zeros((1, int(extractor.sampling_rate)), np.float32)
        return hub, extractor, width_of(spec.name, lambda: embed(hub, extractor, silence))


def _seconds(kind: str, extractor: Any, spec: Spec) -> float:
    """The seconds of a window. Raises UsageError for an option that is no length that the model can read."""
    asked = spec.option or str(_WINDOWS.get(kind, _WINDOW))
    try:
        seconds = float(asked)
    except ValueError:
        seconds = math.nan
    longest = getattr(extractor, "max_length_s", None) or getattr(extractor, "chunk_length", None) or 60
    if not _LEAST <= seconds <= longest:
        raise UsageError(
            f"Encoder {spec.name!r} reads windows of {_LEAST:g} to {longest:g} s; write their length after #, "
            f"not {asked!r}."
        )
    return seconds


def embed(hub: Any, extractor: Any, windows: np.ndarray) -> Any:
    """The vectors [N, D] of windows of sound [N, W].

    Of an encoder that always reads half a minute, only the steps of the window itself are averaged.
    """
    inputs = extractor(list(windows), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    if "is_longer" in inputs:  # CLAP's extractor calls one of several windows longer at random; none is.
        inputs["is_longer"] = inputs["is_longer"] & False
    if not getattr(hub.model.config, "is_encoder_decoder", False):
        return hub.embedding("audio")(inputs)
    steps = hub.entrance("audio")(inputs["input_features"].to(hub.device)).last_hidden_state
    share = windows.shape[1] / (extractor.chunk_length * extractor.sampling_rate)
    return steps[:, : max(math.ceil(steps.shape[1] * min(share, 1.0)), 1)].mean(1)
