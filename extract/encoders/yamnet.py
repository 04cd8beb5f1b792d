"""YAMNet sound embeddings (AudioSet, 521 classes), computed in int8 through TensorFlow Lite.

The network is Google's "YAMNet" (MobileNet v1 over log-mel patches of 0.96 s; Hershey et al., ICASSP 2017
for the data and training).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import AudioNeed
from .base import BaseEncoder, Spec, check_sound

PATCH, HOP, RATE = 15_600, 7_800, 16_000  # 0.975 s and half of it
MAX_PATCHES = 64
_SHORTEST = RATE // 20  # 50 ms; a shorter sound has less than two spectrogram frames
_POOLED = 115


class Yamnet(BaseEncoder):
    """The encoder of sound to [n, 1024], one embedding for each half-overlapping patch of 0.975 s.

    At most 64 patches are taken, spread evenly.
    """

    preprocessing = (
        f"mono 16 kHz, patches of {PATCH} samples every {HOP}, "
        f"at most {MAX_PATCHES} spread evenly, last padded"
    )

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = AudioNeed(RATE)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn samples [n] into patches float32 [m, 15600].

        Raises DecodeError for less than 50 ms or non-finite samples.
        """
        return patches(check_sound(raw, _SHORTEST, self.name))

    def times(self, raw: np.ndarray, taken: np.ndarray | None) -> np.ndarray:
        """The second of the middle of each patch of samples [n], float64 [m]."""
        return middles(np.size(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [np.stack([self.network(patch).reshape(self.dim) for patch in clip]) for clip in batch]

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights, tensor=_POOLED)


def patches(sound: np.ndarray, length: int = PATCH, hop: int = HOP, most: int = MAX_PATCHES) -> np.ndarray:
    """The overlapping patches [m, length] that cover the sound; the last is padded with silence.

    If these are more than ``most``, that many of them are taken evenly.
    """
    starts = starts_of(len(sound), length, hop, most)
    padded = np.pad(sound, (0, max(0, int(starts[-1]) + length - len(sound))))
    return np.stack([padded[start : start + length] for start in starts]).clip(-1.0, 1.0)


def starts_of(samples: int, length: int, hop: int, most: int) -> np.ndarray:
    """The sample int64 [m] at which each patch begins."""
    count = 1 + max(0, -(-(samples - length) // hop))
    if count > most:
        return np.round(np.linspace(0, (count - 1) * hop, most)).astype(np.int64)
    return np.arange(count) * hop


def middles(samples: int, length: int = PATCH, hop: int = HOP, most: int = MAX_PATCHES) -> np.ndarray:
    """The second of the middle of each patch [m] of so many samples, float64 [m].

    Of a sound that is shorter than a patch it is the middle of the sound, and of a last patch that of its own part.
    """
    starts = starts_of(samples, length, hop, most)
    return (starts + np.minimum(starts + length, max(samples, 1))) / (2 * RATE)
