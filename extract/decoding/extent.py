"""How far the packets of a file reach in time, whatever its clocks do."""

from __future__ import annotations

import av
import numpy as np

from .clock import StreamClock, longest_gap

# Seconds read after the end of what is wanted, and those read for a stream that lags behind.
_MARGIN, _FAR = 1.0, 60.0
_MOST_RESETS = 3  # a clock that seems to be set anew more often is a disorderly one, whose times are no guide


class Extent:
    """The span from the earliest to the latest instant of the added packets, in seconds.

    may_jump: whether the format's clock may be set anew; then packets after a jump follow those before it.
    """

    def __init__(self, *, may_jump: bool) -> None:
        self._first = np.inf
        self._last = self._end = -np.inf
        self._longest = longest_gap(may_jump=may_jump)
        self._clocks: dict[int, StreamClock] = {}
        self._reached: dict[int, float] = {}

    def add(self, packet: av.Packet) -> None:
        time = packet.pts if packet.pts is not None else packet.dts
        if time is None or packet.time_base is None or packet.is_discard:
            return
        unit = float(packet.time_base)
        clock = self._clocks.setdefault(packet.stream_index, StreamClock(self._longest))
        offset = clock.offset(packet.dts * unit) if packet.dts is not None else clock.shift
        if packet.dts is not None:
            self._reached[packet.stream_index] = packet.dts * unit + offset
        self._first = min(self._first, time * unit + offset)
        self._end = max(self._end, (time + (packet.duration or 0)) * unit + offset)
        lasts = (packet.duration or 0) if packet.stream.type == "audio" else 0  # a video packet's may mislead
        self._last = max(self._last, (time + lasts) * unit + offset)

    def has_passed(self, time: float, streams: int) -> bool:
        """Whether all of so many streams are well past a time, or one is so far past it that the others have ended."""
        reached = self._reached.values()
        doubtful = any(clock.resets > _MOST_RESETS for clock in self._clocks.values())
        if doubtful or not reached or max(reached) < time + _MARGIN:
            return False
        return (len(reached) == streams and min(reached) >= time + _MARGIN) or max(reached) > time + _FAR

    @property
    def end(self) -> float:
        """The end of the last packet; NaN if no packet tells it."""
        return float(self._end) if self._end > -np.inf else float("nan")

    @property
    def seconds(self) -> float:
        return float(self._last - self._first) if self._last > self._first else float("nan")

    @property
    def reach(self) -> float:
        """The seconds to the end of the last packet, from the first instant or from 0, whichever is longer."""
        return max(float(self._end - min(self._first, 0.0)), 0.0) if self._end > -np.inf else 0.0
