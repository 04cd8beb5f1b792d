"""The decoding of audio packets to mono float32 samples at the rates that the encoders want, in one pass."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

import numpy as np
from av import AudioFrame, AudioResampler, AudioStream, FFmpegError, Packet

# FFmpeg and PyAV's checks raise these errors for a damaged stream or an impossible format.
_FAILURES = (FFmpegError, ValueError, OSError)


class SoundReader:
    """A reader that takes the packets of one audio stream in their order.

    rates: the wanted rates in Hz; without any, the reader only finds out whether anything decodes. max_seconds: the
    length after which sound is not read.
    """

    def __init__(self, stream: AudioStream, rates: Collection[int], max_seconds: float) -> None:
        self._decoder = stream.codec_context
        self._tracks = [_Track(rate, max_seconds) for rate in sorted(set(rates))]
        self._read = 0
        self._damaged = 0
        self._first_damage: float | None = None
        self.heard = False

    @property
    def full(self) -> bool:
        """Whether the reader needs no more packets."""
        return self.heard and all(track.full for track in self._tracks)

    def feed(self, packet: Packet | None) -> None:
        """Decode one packet (None: the end of the stream). Damage is counted and raises no error."""
        if self.full:
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
        self.heard = True
        try:
            for track in self._tracks:
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
            notes.append("the audio stream holds no sound")
        sounds = {track.rate: track.finish() for track in self._tracks}
        sounds = {rate: samples for rate, samples in sounds.items() if len(samples)}
        self.heard = self.heard and (bool(sounds) or not self._tracks)
        return sounds


class _Track:
    """The sound at one rate."""

    def __init__(self, rate: int, max_seconds: float) -> None:
        self.rate = rate
        self._most = int(max_seconds * rate)
        self._count = 0
        self._begun = False
        self._pieces: list[np.ndarray] = []
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

    def _keep(self, frames: list[AudioFrame]) -> None:
        for frame in frames:
            # Channels are mixed by the plain mean: FFmpeg's own mix of float sound is louder and may clip. They come
            # interleaved, because PyAV cannot hand out the planes of more than eight.
            piece = frame.to_ndarray().reshape(-1, frame.layout.nb_channels).mean(1)
            self._pieces.append(piece)
            self._count += len(piece)

    def finish(self) -> np.ndarray:
        if self._begun and not self.full:
            with suppress(*_FAILURES):  # A form that cannot be converted has no samples left.
                self._keep(self._resampler.resample(None))
        if not self._pieces:
            return np.zeros(0, np.float32)
        samples = np.concatenate(self._pieces)[: self._most].astype(np.float32, copy=False)
        # Damaged float codecs give NaN or huge values, and lossy ones overshoot a little.
        return np.clip(np.nan_to_num(samples, nan=0.0, posinf=1.0, neginf=-1.0), -1.0, 1.0)
