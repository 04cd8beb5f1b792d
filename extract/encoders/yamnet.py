"""YAMNet sound embeddings (AudioSet, 521 classes), computed in int8 through TensorFlow Lite.

The network is Google's "YAMNet" (MobileNet v1 over log-mel patches of 0.96 s; Hershey et al., ICASSP 2017
for the data and training).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .sound_windows import MAX_WINDOWS, SoundEncoder

PATCH, HOP, RATE = 15_600, 7_800, 16_000  # 0.975 s and half of it
_POOLED = 115


class Yamnet(SoundEncoder):
    """The encoder of sound to [n, 1024], one embedding for each half-overlapping patch of 0.975 s.

    At most 64 patches are taken, spread evenly.
    """

    rate, window, usual_hop = RATE, PATCH, HOP

    def described(self) -> str:
        return (
            f"mono 16 kHz, patches of {PATCH} samples every {self.hop}, "
            f"at most {MAX_WINDOWS} spread evenly, last padded"
        )

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [np.stack([self.network(patch).reshape(self.dim) for patch in clip]) for clip in batch]

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights, tensor=_POOLED)
