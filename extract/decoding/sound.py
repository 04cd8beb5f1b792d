"""The decoding of audio packets to mono float32 samples at the rates that the encoders want, in one pass."""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import suppress

import numpy as np
from av import AudioFrame, AudioResampler, AudioStream, FFmpegError, Packet

from .window import Window

# FFmpeg and PyAV's checks raise these errors for a damaged stream or an impossible format.
_FAILURES = (FFmpegError, ValueError, OSError)
_SAME = 0.1  # samples; a time this little after a sample is that of the sample, since times are rounded


class SoundReader:
    """A reader that takes the packets of one audio stream in their order.

    rates: the wanted rates in Hz; without any, the reader only finds out whether anything decodes. max_seconds: the
    length after which sound is not read. window: the part of the sound that is wanted; None for all of it.
    """

    def __init__(
        self, stream: AudioStream, rates: Collection[int], max_seconds: float, window: Window | None = None
    ) -> None:
        self._decoder = stream.codec_context
        self._window = window
        if window is not None:
            window.end = min(window.end, window.start + max_seconds)
            max_seconds = math.inf
        self._tracks = [_Track(rate, max_seconds) for rate in sorted(set(rates))]
        self._read = 0
        self._damaged = 0
        self._first_damage: float | None = None
        self.heard = False

    @property
    def full(self) -> bool:
        """Whether the reader needs no more packets."""
        if self._window is not None:
            return self._window.over
        return self.heard and all(track.full for track in self._tracks)

    def feed(self, packet: Packet | None) -> None:
        """Decode one packet (None: the end of the stream). Damage is counted and raises no error."""
        if self.full or (self._window is not None and packet is not None and not self._window.wants(packet)):
            return
        self._read += packet is not None
        try:
            frames = self._decoder.decode(packet)
        except _FAILURES:
            frames = []
            self._note_damage()
        for frame in frames:
            if frame.samples:
                self._hear(frame)

    def _hear(self, frame: AudioFrame) -> None:
        time, follows = (0.0, True) if self._window is None else self._window.place(frame)
        self.heard = self.heard or self._window is None or self._window.holds(frame, time)
        try:
            for track in self._tracks:
                if not follows:
                    track.begin_at(time)
                track.add(frame)
        except _FAILURES:
            self._note_damage()

    def _note_damage(self) -> None:
        self._damaged += 1
        if self._first_damage is None:
            self._first_damage = max((track.seconds for track in self._tracks), default=0.0)

    def finish(self, notes: list[str]) -> dict[int, np.ndarray]:
        """The samples [n] in [-1, 1] by rate, empty if nothing was decoded; damage is reported in ``notes``."""
        self.feed(None)
        if self._damaged:
            notes.append(
                f"sound is damaged after {self._first_damage or 0.0:.1f} s: "
                f"{min(self._damaged, self._read)} of {self._read} audio packets could not be used"
            )
        elif not self.heard:
            where = "" if self._window is None else " in the part that the clip is"
            notes.append(f"the audio stream holds no sound{where}")
        sounds = {track.rate: track.finish(self._window) for track in self._tracks}
        sounds = {rate: samples for rate, samples in sounds.items() if len(samples)}
        self.heard = self.heard and (bool(sounds) or not self._tracks)
        return sounds


class _Track:
    """The sound at one rate."""

    def __init__(self, rate: int, max_seconds: float) -> None:
        self.rate = rate
        self._most = max_seconds * rate
        self._count = 0
        self._begun = False
        self._pieces: list[np.ndarray] = []
        self._begins: list[tuple[float, int]] = []  # the time and number of each sample that follows a pause
        self._resampler = self._new_resampler()

    def _new_resampler(self) -> AudioResampler:
        return AudioResampler(format="flt", rate=self.rate)

    @property
    def full(self) -> bool:
        return self._count >= self._most

    @property
    def seconds(self) -> float:
        return self._count / self.rate

    def add(self, frame: AudioFrame) -> None:
        if self.full:
            return
        self._begun = True
        # Frames without a time follow each other; the resampler must not pad or drop to honour odd stamps.
        frame.pts = None
        try:
            self._keep(self._resampler.resample(frame))
        except ValueError:
            # The stream has changed its rate or layout: the old form ends and the new one begins.
            self._keep(self._resampler.resample(None))
            self._resampler = self._new_resampler()
            self._keep(self._resampler.resample(frame))

    def begin_at(self, time: float) -> None:
        """The next sample is that of a time in seconds, and does not follow those before it."""
        if self._begun:
            with suppress(*_FAILURES):
                self._keep(self._resampler.resample(None))
            self._resampler = self._new_resampler()
        self._begins.append((time, self._count))

    def _keep(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            # Channels are mixed by the plain mean: FFmpeg's own mix of float sound is louder and may clip. They come
            # interleaved, because PyAV cannot hand out the planes of more than eight.
            piece = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1)
            self._pieces.append(piece)
            self._count += len(piece)

    def finish(self, window: Window | None) -> np.ndarray:
        if self._begun and not self.full:
            with suppress(*_FAILURES):  # A form that cannot be converted has no samples left.
                self._keep(self._resampler.resample(None))
        if not self._pieces:
            return np.zeros(0, np.float32)
        samples = np.concatenate(self._pieces).astype(np.float32, copy=False)
        if window is not None:
            samples = self._inside(samples, window)
        samples = samples[: int(self._most)] if self._most < math.inf else samples
        # Damaged float codecs give NaN or huge values, and lossy ones overshoot a little.
        return np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)

    def _inside(self, samples: np.ndarray, window: Window) -> np.ndarray:
        """The samples whose times lie in a window."""
        ends = [*(first for _, first in self._begins[1:]), len(samples)]
        parts = []
        for (time, first), last in zip(self._begins, ends, strict=True):
            start, end = (
                first + max(math.ceil((edge - time) * self.rate - _SAME), 0)
                for edge in (window.start, min(window.end, time + (last - first) / self.rate))
            )
            parts.append(samples[min(start, last) : min(end, last)])
        return np.concatenate(parts)
