"""Picture hash: what a frame looks like in coarse strokes, by which copies of a video are found again.

Like the perceptual hashes of still pictures, it keeps what re-encoding and scaling leave (light and colour over a
coarse grid), and drops level and contrast. The numbers are kept as they are and not made into bits, so that ``fsmm
cache duplicates`` can weigh them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..contract import FrameNeed
from .base import BaseEncoder, Spec
from .efficientnet import first_frames

SIDE, GRID, COLOURS = 64, 16, 4
VIEWS = (1.0, 0.9, 0.8)
"""The central shares of a frame that are described one after the other, because a copy may be cropped."""
DIM = len(VIEWS) * (GRID * GRID + 3 * COLOURS * COLOURS)
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_FLAT = 1.0  # A picture whose deviation is below this many levels of 255 shows nothing.


class PictureHash(BaseEncoder):
    """The encoder of each frame to light over 16 x 16 and colour over 4 x 4 places, of three views: [T, 912]."""

    preprocessing = f"{SIDE} squash; light {GRID}x{GRID}, colour {COLOURS}x{COLOURS}, of 100, 90 and 80 %"
    batch_clips = 64

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(size=SIDE, resize="squash")

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 1, S, S, 3] into hashes float32 [T, 912]. Raises DecodeError for another form."""
        frames = first_frames(super().prepare(raw)).astype(np.float32)
        return np.concatenate([described(frames, share) for share in VIEWS], axis=1)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return list(batch)


def described(frames: np.ndarray, share: float) -> np.ndarray:
    """The light and the colour of the central ``share`` of frames float32 [T, S, S, 3], [T, 304], without its level.

    A frame without any contrast becomes zeros.
    """
    side = frames.shape[1]
    margin = side * (1 - share) / 2
    edges = np.array([margin, side - margin])
    light = averaged(frames @ _LUMA, edges, GRID)
    light -= light.mean((1, 2), keepdims=True)
    colour = np.stack([averaged(frames[..., c], edges, COLOURS) for c in range(3)], axis=-1)
    colour -= colour.mean(-1, keepdims=True)
    # Both parts have as many votes as their places, and colour half of them, since re-encoding moves it more.
    weight = 0.5 * GRID / (COLOURS * np.sqrt(3))
    whole = np.concatenate([light.reshape(len(frames), -1), weight * colour.reshape(len(frames), -1)], axis=1)
    size = np.linalg.norm(whole, axis=1, keepdims=True) / GRID
    return np.where(size < _FLAT, 0, whole / np.maximum(size, _FLAT)).astype(np.float32)


def averaged(planes: np.ndarray, edges: np.ndarray, grid: int) -> np.ndarray:
    """The means of planes [T, S, S] over a grid of equal places between two edges, [T, grid, grid]."""
    places = np.linspace(edges[0], edges[1], grid + 1)
    for axis in (1, 2):
        total = np.insert(np.cumsum(planes, axis=axis, dtype=np.float64), 0, 0.0, axis=axis)
        low = np.minimum(places.astype(int), total.shape[axis] - 2)
        part = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        at = np.take(total, low, axis) * (1 - part) + np.take(total, low + 1, axis) * part
        planes = np.diff(at, axis=axis) * (grid / (edges[1] - edges[0]))
    return planes
