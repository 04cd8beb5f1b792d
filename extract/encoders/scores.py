"""Class scores of networks that were trained on labels: what the encoder itself takes a clip for.

They are stored as streams of the modality ``score``, which evaluations leave out unless they are named; ``fsmm cache
overlap`` reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .efficientnet import EfficientNetLiteInt8
from .i3d import I3dRgb
from .yamnet import Yamnet


class EfficientNetScores(EfficientNetLiteInt8):
    """The encoder of frames to the probabilities [T, 1000] of the classes of ImageNet."""

    preprocessing = "rgb 224 crop, uint8, probabilities"

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights)


class YamnetScores(Yamnet):
    """The encoder of sound to the probabilities [n, 521] of the classes of AudioSet, as ``yamnet`` cuts it."""

    def described(self) -> str:
        return f"{super().described()}; probabilities"

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights)


class I3dScores(I3dRgb):
    """The encoder of 32 frames to the probabilities [1, 400] of the classes of Kinetics-400."""

    preprocessing = "32 frames evenly, rgb 224 crop, x/127.5-1, probabilities"

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        from .torch_run import run_in_chunks

        _, classify, device = self.network
        found = []
        for features in super()._encode(batch):
            logits = run_in_chunks(classify, features[None], 1, device).astype(np.float64)
            powers = np.exp(logits - logits.max())
            found.append(powers / powers.sum())
        return found
