"""A part of a stream's sound, found by the stamps of its packets."""

from __future__ import annotations

from av import AudioFrame, Packet

from .clock import StreamClock

_PREROLL = 2.0  # seconds decoded before a window, in which decoders that remember find their state
_AFTER = 0.25  # seconds decoded after a window, so that resampling has what follows it
_PAUSE = 0.05  # seconds; sound whose stamps leave a longer gap does not follow what came before


class Window:
    """A part of a stream's sound, from one time to another in seconds of its stamps.

    longest_gap: the seconds above which the stream's clock was set anew.
    """

    def __init__(self, start: float, end: float, longest_gap: float) -> None:
        self.start, self.end = start, end
        self.over = False
        self._clock = StreamClock(longest_gap)
        self._next: float | None = None

    def wants(self, packet: Packet) -> bool:
        """Whether a packet may hold sound that is in the window, or that must be decoded before it."""
        if packet.time_base is None:
            return True
        unit = float(packet.time_base)
        if packet.dts is not None:
            self._clock.offset(packet.dts * unit)
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None:
            return True
        begins = time * unit + self._clock.shift
        self.over = self.over or begins > self.end + _AFTER
        return begins + (packet.duration or 0) * unit > self.start - _PREROLL

    def place(self, frame: AudioFrame) -> tuple[float, bool]:
        """The time of a frame's first sample, and whether it follows the frame before without a pause."""
        expected = self._next
        time = expected
        if frame.pts is not None and frame.time_base is not None:
            time = frame.pts * float(frame.time_base) + self._clock.shift
        if expected is not None and time is not None and abs(time - expected) < _PAUSE:
            time = expected
        time = 0.0 if time is None else time
        self._next = time + frame.samples / frame.sample_rate
        return time, time == expected

    def holds(self, frame: AudioFrame, time: float) -> bool:
        """Whether any sample of a frame that begins at ``time`` lies in the window."""
        return time < self.end and time + frame.samples / frame.sample_rate > self.start
