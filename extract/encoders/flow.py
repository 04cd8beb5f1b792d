"""Motion encoders: one of histograms of optical flow and motion boundaries, one of a picture network over
colour-coded flow.

Dalal, Triggs and Schmid, "Human Detection Using Oriented Histograms of Flow and Appearance", ECCV 2006
(motion boundaries); Wang and Schmid, "Action Recognition with Improved Trajectories", ICCV 2013 (the rest
bin, root and unit length).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DecodeError
from ..contract import FrameNeed
from .base import BaseEncoder, Spec
from .efficientnet import load_forward
from .flow_motion import colour, flows
from .torch_encoder import TorchEncoder

BINS, GRID = 8, 3
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # centres of the speed bins, in per cent of the frame's side a step
_REST = 0.25  # Slower motion (per cent of the side) counts as rest: a compressed still scene moves that much.
_FULL = 5.0  # mean motion of this speed has the same weight as a whole histogram
DIM = GRID * GRID * (BINS + 1 + len(SPEEDS) + 1 + 2 * BINS + 2)


class DisHof(BaseEncoder):
    """Each segment's motion as one vector, computed in ``prepare``: [T, 306].

    Each cell of a 3x3 grid gives directions weighted by speed, with a rest bin (9); speeds (7: rest and six
    octaves); the directions of the gradients of both flow components (8 + 8), which camera motion does not
    touch; and the mean motion (2). Histograms are rooted and brought to unit length over the grid; the mean
    motion keeps its scale.
    """

    preprocessing = "160 crop, 2 DIS (medium) pairs a segment; hof 9, speed 7, mbh 8+8, mean 2 over 3x3"
    batch_clips = 64
    method = "medium"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(length=3, stride=1, size=160)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, L, S, S, 3] into descriptors float32 [T, 306].

        Raises DecodeError if a segment has no pair of frames.
        """
        flow = flows(pairs(super().prepare(raw), self.name), self.method)
        return describe(flow, side=flow.shape[2])

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return list(batch)


class TvL1Hof(DisHof):
    """The same descriptor of TV-L1's flow, which is the usual one of two-stream networks and a hundred times slower."""

    preprocessing = "160 crop, 2 TV-L1 pairs a segment; hof 9, speed 7, mbh 8+8, mean 2 over 3x3"
    method = "tvl1"


class FlowRgb(TorchEncoder):
    """The encoder of EfficientNet-Lite0 over colour-coded flow, with one vector a segment: [T, 1280]."""

    preprocessing = "224 crop, one DIS (medium) pair a segment, colours full at 5 %, (x-127)/128"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = FrameNeed(length=2, stride=1, size=224)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn frames uint8 [T, 2, S, S, 3] into pictures of flow uint8 [T, S, S, 3].

        Raises DecodeError if a segment has no pair of frames.
        """
        frames = pairs(super().prepare(raw), self.name)
        return colour(flows(frames)[:, 0], fastest=frames.shape[2] * _FULL / 100)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        forward, device = self.network
        return self._run(forward, batch, device)

    def _load(self) -> Any:
        return load_forward(self.spec, "efficientnet-lite0")


def pairs(frames: np.ndarray, name: str) -> np.ndarray:
    """The frames [T, L, S, S, 3], unchanged. Raises DecodeError if a segment has fewer than two (L < 2)."""
    if frames.shape[1] < 2:
        raise DecodeError(f"Encoder {name!r} needs two or more frames a segment; it was given one.")
    return frames


def describe(flow: np.ndarray, side: int) -> np.ndarray:
    """The descriptors float32 [T, 306] of flow float32 [T, P, S, S, 2] in pixels of frames of that ``side``.

    The P pairs of a segment count as one.
    """
    # Every second vector is enough: DIS computes them on an even coarser grid and interpolates.
    percent = flow[:, :, ::2, ::2] * np.float32(100.0 / side)  # so that the frames' size drops out
    u, v = percent[..., 0], percent[..., 1]
    speed = np.hypot(u, v)
    moving = speed >= _REST
    hof = np.concatenate(
        [_directions(u, v, speed * moving), _cells(np.where(moving, 0.0, _REST)[..., None])], axis=-1
    )
    blocks = [_rooted(hof), _rooted(_cells(_octaves(speed)))]
    for part in (u, v):
        down, right = np.gradient(part, axis=(2, 3))
        blocks.append(_rooted(_directions(right, down, np.hypot(right, down)), floor=0.05))
    mean = _cells(percent)
    blocks.append(np.sign(mean) * np.sqrt(np.abs(mean) / _FULL) / GRID)
    return np.concatenate([block.reshape(len(flow), -1) for block in blocks], axis=1).astype(np.float32)


def _directions(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The histograms [T, G, G, 8] of directions, where the two nearest bins share each vector; bin 0 is rightwards."""
    place = np.arctan2(y, x) * (BINS / (2 * np.pi))
    low = np.floor(place)
    share = place - low
    low = low.astype(np.int64) % BINS
    return _scatter(low, weight * (1 - share), BINS) + _scatter((low + 1) % BINS, weight * share, BINS)


def _octaves(speed: np.ndarray) -> np.ndarray:
    """The memberships [..., 7] of each speed in rest and six octaves.

    A speed above rest is shared between the two nearest octave centres by its logarithm.
    """
    centres = np.log2(np.asarray(SPEEDS, np.float32))
    place = np.clip(np.log2(np.maximum(speed, 1e-6)), centres[0] - 1, centres[-1]) - (centres[0] - 1)
    return np.maximum(1.0 - np.abs(place[..., None] - np.arange(len(SPEEDS) + 1, dtype=np.float32)), 0.0)


def _scatter(index: np.ndarray, weight: np.ndarray, bins: int) -> np.ndarray:
    """The mean of ``weight`` over each cell by ``index``, both [T, P, S, S], as [T, G, G, bins]."""
    segments, _, height, width = index.shape
    row = (np.arange(height) * GRID // height)[:, None] * GRID
    cell = row + (np.arange(width) * GRID // width)[None, :]
    key = ((np.arange(segments)[:, None, None, None] * GRID * GRID + cell) * bins + index).ravel()
    total = np.bincount(key, weight.ravel(), segments * GRID * GRID * bins)
    return total.reshape(segments, GRID, GRID, bins) / (index[0].size / GRID**2)


def _cells(values: np.ndarray) -> np.ndarray:
    """The mean [T, G, G, C] of values [T, P, S, S, C] over pairs and over each cell."""
    rows = np.array_split(values.mean(1), GRID, axis=1)
    return np.stack([np.stack([c.mean((1, 2)) for c in np.array_split(r, GRID, axis=2)], 1) for r in rows], 1)


def _rooted(histogram: np.ndarray, floor: float = 1e-3) -> np.ndarray:
    """The square roots of a histogram, of unit length over the grid.

    A total below ``floor`` stays small, so that noise is not amplified.
    """
    total = histogram.sum((1, 2, 3), keepdims=True)
    return np.sqrt(histogram / np.maximum(total, floor))
