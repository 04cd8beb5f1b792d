"""Windows of sound, one rule for all encoders of sound.

Windows of the encoder's own length begin a hop apart (``--sound-hop``, else the encoder's usual one), until the sound
is at its end. The last one, and a sound shorter than one window, is filled up with silence behind it; less than 50 ms
of sound is no sound. Of more than 64 windows, 64 are taken evenly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from ...errors import UsageError
from ..contract import AudioNeed
from .base import BaseEncoder, Spec, check_sound

MAX_WINDOWS = 64
HOP_SECONDS = "sound_hop"
_LONGEST = 86_400 * 192_000  # samples of a day at any rate
_SHORTEST = 20  # of a second, which is 50 ms


class SoundEncoder(BaseEncoder, ABC):
    """The base of encoders of windows of sound. rate: in Hz; window, usual_hop: in samples."""

    rate = 16_000
    window = 15_600
    usual_hop = 7_800

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.need = AudioNeed(self.rate)
        self.hop = self.usual_hop
        self.preprocessing = self.described()

    @abstractmethod
    def described(self) -> str:
        """What is done to the sound, with the windows and the hop; part of the provenance."""

    def set_hop(self, seconds: float) -> None:
        """Let windows begin that many seconds apart. Raises UsageError unless it is one sample or more."""
        if not 1 <= seconds * self.rate < _LONGEST:
            raise UsageError(f"--sound-hop is {seconds:g} s; it must be above 0, and no longer than a day.")
        self.hop = round(seconds * self.rate)
        self.preprocessing = self.described()

    def fit_to_origin(self, extra: Mapping[str, str]) -> None:
        """Take the hop that a stream was made with, by its provenance's ``extra``. Raises UsageError for no number."""
        if HOP_SECONDS in extra:
            try:
                seconds = float(extra[HOP_SECONDS])
            except ValueError:
                raise UsageError(f"The stream's hop of sound is no number: {extra[HOP_SECONDS]!r}.") from None
            self.set_hop(seconds)

    def provenance(self) -> dict[str, str]:
        """The origin of the features, with the hop in seconds where it is not the usual one."""
        found = super().provenance()
        if self.hop != self.usual_hop:
            found[HOP_SECONDS] = repr(self.hop / self.rate)
        return found

    def cut(self, raw: np.ndarray) -> np.ndarray:
        """The windows float32 [m, W] of samples [n]. Raises DecodeError for less than 50 ms or non-finite samples."""
        return patches(check_sound(raw, self.rate // _SHORTEST, self.name), self.window, self.hop)

    def prepare(self, raw: np.ndarray) -> np.ndarray:
        """Turn samples [n] into windows float32 [m, W].

        Raises DecodeError for less than 50 ms or non-finite samples.
        """
        return self.cut(raw)

    def times(self, raw: np.ndarray, taken: np.ndarray | None) -> np.ndarray:
        """The second of the middle of each window of samples [n], float64 [m]."""
        return middles(np.size(raw), self.window, self.hop, rate=self.rate)


def patches(sound: np.ndarray, length: int, hop: int, most: int = MAX_WINDOWS) -> np.ndarray:
    """The overlapping windows [m, length] that cover the sound; the last is padded with silence.

    If these are more than ``most``, that many of them are taken evenly.
    """
    starts = starts_of(len(sound), length, hop, most)
    padded = np.pad(sound, (0, max(0, int(starts[-1]) + length - len(sound))))
    return np.stack([padded[start : start + length] for start in starts]).clip(-1.0, 1.0)


def starts_of(samples: int, length: int, hop: int, most: int = MAX_WINDOWS) -> np.ndarray:
    """The sample int64 [m] at which each window of so many samples begins."""
    count = 1 + max(0, -(-(samples - length) // hop))
    count = min(
        count, max(1, -(-samples // hop))
    )  # A hop longer than a window leaves gaps, and none begins beyond.
    if count > most:
        return np.round(np.linspace(0, (count - 1) * hop, most)).astype(np.int64)
    return np.arange(count) * hop


def middles(samples: int, length: int, hop: int, *, rate: int) -> np.ndarray:
    """The second of the middle of each window, float64 [m], of so many samples at ``rate`` Hz.

    Of a last window it is the middle of the part that the sound fills.
    """
    starts = starts_of(samples, length, hop)
    return (starts + np.minimum(starts + length, max(samples, 1))) / (2 * rate)
