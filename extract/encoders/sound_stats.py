"""Classical sound statistics: log-mel spectrum and cepstrum over windows of about a second.

They need numpy only, and no weights.

Mel scale: O'Shaughnessy 1987 (HTK's form). Cepstrum: Davis and Mermelstein, IEEE TASSP 1980.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .sound_windows import SoundEncoder
from .yamnet import HOP, PATCH, RATE

WINDOW, STEP, FFT = 400, 160, 512  # 25 ms every 10 ms
MELS, CEPS, LOW, HIGH = 64, 20, 50.0, 7_800.0
_FLOOR = 1e-6  # least mel energy, below the noise of 16-bit sound
DIM = 2 * MELS + 1 + 2 * CEPS


class LogmelMfcc(SoundEncoder):
    """The statistics [n, 169] of half-overlapping windows of 0.975 s, computed in ``prepare``.

    They are the mean log-mel spectrum relative to its own level (64), that level (1), its standard deviation over
    time (64), the standard deviation of the cepstrum (20) and of its change from frame to frame (20).
    """

    rate, window, usual_hop = RATE, PATCH, HOP
    batch_clips = 64

    def described(self) -> str:
        return (
            f"mono 16 kHz, {WINDOW}/{STEP} frames, {MELS} mels {LOW:g}-{HIGH:g} Hz, {CEPS} ceps, "
            f"windows {PATCH}/{self.hop}"
        )

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn samples [n] into statistics float32 [m, 169].

        Raises DecodeError for less than 50 ms or non-finite samples.
        """
        return describe(self.cut(raw))

    def _encode(self, batch: Sequence[Any]) -> list[np.ndarray]:
        return list(batch)


def describe(windows: np.ndarray) -> np.ndarray:
    """The statistics float32 [m, 169] of windows of samples [m, n]."""
    spectrum = log_mel(windows)
    level = spectrum.mean((1, 2))
    cepstrum = spectrum @ _dct()
    change = np.diff(cepstrum, axis=1)
    parts = (
        spectrum.mean(1) - level[:, None],
        level[:, None],
        spectrum.std(1),
        cepstrum.std(1),
        change.std(1),
    )
    return np.concatenate(parts, axis=1).astype(np.float32)


def log_mel(windows: np.ndarray) -> np.ndarray:
    """The natural logarithms of the mel energies [m, frames, 64] of samples [m, n]."""
    frames = np.lib.stride_tricks.sliding_window_view(windows, WINDOW, axis=-1)[:, ::STEP]
    power = np.abs(np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1].astype(np.float32), FFT)) ** 2
    return np.log(power.astype(np.float32) @ mel_filters() + _FLOOR)


def mel(hertz: np.ndarray | float) -> np.ndarray:
    """The mels of a frequency in hertz."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz, np.float64) / 700.0)


@lru_cache(maxsize=1)
def mel_filters() -> np.ndarray:
    """The triangular filters [257, 64], evenly spaced in mels between LOW and HIGH, of height 1 at their centre."""
    return triangular_filters(LOW, HIGH, MELS)


def triangular_filters(low: float, high: float, count: int) -> np.ndarray:
    """The filters float32 [257, count] between two frequencies in hertz, triangles over mels, of height 1 at their
    centre.
    """
    edges = np.linspace(mel(low), mel(high), count + 2)
    at = mel(np.linspace(0, RATE / 2, FFT // 2 + 1))[:, None]
    rising = (at - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - at) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0.0).astype(np.float32)


@lru_cache(maxsize=1)
def _dct() -> np.ndarray:
    """The orthonormal cosines [64, 20] without the constant one, since the level is a feature of its own."""
    order = np.arange(1, CEPS + 1)
    waves = np.cos(np.pi / MELS * (np.arange(MELS)[:, None] + 0.5) * order)
    return (np.sqrt(2.0 / MELS) * waves).astype(np.float32)
