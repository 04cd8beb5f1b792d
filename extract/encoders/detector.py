"""The objects in each frame: EfficientDet-Lite0's scores (COCO) by class, wherever in the picture they are.

Tan, Pang and Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import FrameNeed
from .base import BaseEncoder, Spec
from .efficientnet import first_frames


class EfficientDetLite(BaseEncoder):
    """The encoder of frames to the highest score of each of the 90 classes over all boxes, in 0..1: [T, 90]."""

    preprocessing = "rgb 320 squash, uint8, maximum score over boxes"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=320, resize="squash")

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 1, S, S, 3] into [T, S, S, 3]. Raises DecodeError for another form."""
        return first_frames(super().prepare(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return [
            np.stack([self.network(frame).reshape(-1, self.dim).max(0) for frame in clip]) for clip in batch
        ]

    def _load(self) -> Any:
        from .tflite import TfliteModel

        assert self.spec.weights is not None
        return TfliteModel(self.spec.weights, output=_SCORES)


_SCORES = 0
