"""A classical descriptor: the mean brightness of an 8 x 8 grid of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fsmm.extract.contract import FrameNeed
from fsmm.extract.encoders.base import BaseEncoder, Spec

GRID, SIDE = 8, 64


class Brightness(BaseEncoder):
    """One vector of 64 numbers in 0..1 a frame."""

    preprocessing = f"mean over colours and over an {GRID} x {GRID} grid, divided by 255"
    batch_clips = 64

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=SIDE)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Frames uint8 [T, 1, S, S, 3] to float32 [T, 64]."""
        cell = SIDE // GRID
        grey = raw[:, 0].mean(-1).reshape(len(raw), GRID, cell, GRID, cell)
        return (grey.mean((2, 4)).reshape(len(raw), -1) / 255).astype(np.float32)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return list(batch)
