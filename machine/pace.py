"""The pace of a phase of work: how many units are done a second, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """The pace since the first report of a phase.

    The work that was done before the first report, such as the steps that a resumed training finds done, does not
    count, and neither does the time that passed before it, in which other things were made ready.

    >>> clock = iter([10.0, 12.0])
    >>> pace = Pace(clock=lambda: next(clock))
    >>> pace.report(100)
    >>> pace.report(110)
    >>> pace.rate, pace.seconds_left(total=160)
    (5.0, 10.0)
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] = (0.0, 0)

    def report(self, done: int) -> None:
        """Take note of the number of units done by now; a number below the last one begins the phase anew."""
        if self._first is None or done < self._last[1]:
            self._first = (self._clock(), done)
            self._last = self._first
            return
        self._last = (self._clock(), done)

    @property
    def rate(self) -> float | None:
        """Units a second, or None before a second report has come."""
        if self._first is None or self._last[1] == self._first[1]:
            return None
        return (self._last[1] - self._first[1]) / max(self._last[0] - self._first[0], 1e-9)

    def seconds_left(self, total: int) -> float | None:
        """The seconds that the units up to ``total`` will take, or None before a second report has come."""
        rate = self.rate
        return None if rate is None else max(total - self._last[1], 0) / rate


def clock_text(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds; dashes where they are not known.

    >>> clock_text(3725), clock_text(59.6), clock_text(None)
    ('1:02:05', '0:01:00', '-:--:--')
    """
    if seconds is None:
        return "-:--:--"
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def rate_text(rate: float | None) -> str:
    """Units a second as a text, such as ``12/s`` or ``0.8/s``; empty where the rate is not known."""
    if rate is None:
        return ""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
