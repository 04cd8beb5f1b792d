"""Made time series: a sine of its class's frequency on every axis, for trying encoders of series."""

from __future__ import annotations

import numpy as np

CLASSES, MEMBERS, AXES = 6, 3, 6
_WINDOWS, _LENGTH = 3, 50


def made_windows(label: int, member: int, axes: int) -> np.ndarray:
    """The windows float32 [3, 50, axes] of a member of a class: no chance is in them, and no file is read.

    The class decides the frequency; the member and the axis decide phase, size and level.
    """
    step = np.arange(_WINDOWS * _LENGTH).reshape(_WINDOWS, _LENGTH, 1)
    axis = np.arange(axes)
    share = (label + 1) / (CLASSES + 1)  # of half the sampling rate
    wave = np.sin(np.pi * share * step + axis * (label + 1) / 3 + 0.1 * member)
    return ((1 + axis % 3) * wave + 0.2 * (axis % 2) + 0.05 * member).astype(np.float32)
