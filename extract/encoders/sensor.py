"""Windows of a sensor's time series as features of time and frequency: no network, no weights.

For each window and axis: mean, spread, energy, spectral centroid and the power in four bands; for each pair of axes
their correlation. Frequencies are shares of half the sampling rate, so that they do not depend on it. Mean, spread and
energy are compressed by sign(x) log(1 + |x|), since axes of different units (g, degrees a second) share one vector.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import DecodeError
from ..contract import SeriesNeed
from .base import BaseEncoder, Spec

BANDS = 4
_PER_AXIS = 4 + BANDS
_FLOOR = 1e-6  # of the whole power; the logarithm of less tells nothing


class SeriesEncoder(BaseEncoder):
    """An encoder of a series, whose width depends on the number of axes that the data set has.

    series: the name of the series that it reads.
    """

    series = "sensor"

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = SeriesNeed(self.series)
        self.axes = 0

    def fit_to(self, axes: int) -> None:
        """Take the number of axes of the data set's series, which decides the width of a feature vector."""
        self.axes, self.dim = axes, width(axes)

    def fit_to_width(self, dim: int) -> None:
        """Take the number of axes whose features have this width; of a width that no number has, the nearest below."""
        self.fit_to(max(int((math.sqrt((2 * _PER_AXIS - 1) ** 2 + 8 * dim) - 2 * _PER_AXIS + 1) / 2), 1))


class WindowStats(SeriesEncoder):
    """Features of time and frequency of each window of a sensor's series."""

    preprocessing = (
        f"mean, spread, energy (log), centroid, log power in {BANDS} bands an axis; correlation of axes"
    )
    batch_clips = 64

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """The features float32 [T, D] of windows [T, W, C]. Raises DecodeError for another number of axes."""
        if raw.ndim != 3 or width(raw.shape[2]) != self.dim:
            raise DecodeError(
                f"The series has {raw.shape[-1]} axes where others of the data set have another number of them."
            )
        return window_features(raw)

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return list(batch)


class SkeletonWindowStats(WindowStats):
    """The same features of the coordinates of a skeleton's joints."""

    series = "skeleton"


class DepthWindowStats(WindowStats):
    """The same features of the blocks of depth maps."""

    series = "depth"


def width(axes: int) -> int:
    """The number of features of a window with so many axes.

    >>> width(6), width(19)
    (63, 323)
    """
    return _PER_AXIS * axes + axes * (axes - 1) // 2


def window_features(windows: np.ndarray) -> np.ndarray:
    """The features float32 [T, D] of windows [T, W, C]: each kind over all axes, then the correlations of pairs."""
    x = windows.astype(np.float64)
    centred = x - x.mean(1, keepdims=True)
    spread = x.std(1)
    power = np.abs(np.fft.rfft(centred, axis=1)[:, 1:]) ** 2
    total = power.sum(1)
    at = np.arange(1, power.shape[1] + 1) / max(power.shape[1], 1)
    still = np.maximum(total, np.finfo(np.float64).tiny)
    centroid = (power * at[None, :, None]).sum(1) / still
    share = np.stack([band.sum(1) for band in np.array_split(power, BANDS, axis=1)], 1) / still[:, None]
    parts = (
        _compressed(x.mean(1)),
        _compressed(spread),
        _compressed((x**2).mean(1)),
        centroid,
        *np.moveaxis(np.log10(share + _FLOOR), 1, 0),
        _correlations(centred, spread),
    )
    return np.concatenate(parts, axis=1).astype(np.float32)


def _correlations(centred: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The correlation of each pair of axes [T, C (C - 1) / 2]; 0 where one of them does not move."""
    moving = spread > 0
    unit = np.where(moving[:, None], centred / np.where(moving, spread, 1.0)[:, None], 0.0)
    matrix = np.matmul(unit.swapaxes(1, 2), unit) / centred.shape[1]
    first, second = np.triu_indices(centred.shape[2], 1)
    found: np.ndarray = matrix[:, first, second]
    return found


def _compressed(x: np.ndarray) -> np.ndarray:
    return np.sign(x) * np.log1p(np.abs(x))
