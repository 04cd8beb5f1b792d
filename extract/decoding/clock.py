"""The times of frames from time stamps that jump, repeat or step back.

Stamps jump where recordings were joined (segments of a stream, files that were copied one after the other) or where a
counter ran over. FFmpeg's own programs close such gaps as this module does: forward by more than ten seconds in formats
whose clock may be set anew, such as MPEG-TS, and backward in all formats.
"""

from __future__ import annotations

import numpy as np

_JUMP = 10.0  # seconds; in formats whose clock may be set anew, a longer gap is a jump, as FFmpeg's programs have it
_LONGEST_GAP = 30 * 3600.0  # seconds; in all other formats
SLACK = 0.1  # seconds; stamps that step back by less are merely inexact
_STEPS = 3  # steps of the usual length; stamps that step back by less are merely inexact
_LONGEST_SPAN = 1 << 52  # ticks; stamps with a longer span are damaged


def clock_works(times: np.ndarray) -> bool:
    """Whether the times are strictly increasing and their span is plausible."""
    if len(times) == 0 or int(times[-1]) - int(times[0]) > _LONGEST_SPAN:
        return False
    return bool((np.diff(times) > 0).all())


def usual_step(times: np.ndarray) -> int:
    """The median of the steps forward between the times, at least 1."""
    return _usual(np.diff(times))


def _usual(steps: np.ndarray) -> int:
    forward = steps[steps > 0]
    return max(int(np.median(forward)), 1) if len(forward) else 1


def longest_gap(*, may_jump: bool) -> float:
    """The seconds above which a gap is a jump. may_jump: whether the format's clock may be set anew."""
    return _JUMP if may_jump else _LONGEST_GAP


def find_jumps(stamps: np.ndarray, unit: float, *, may_jump: bool) -> np.ndarray:
    """Whether the clock was set anew between a stamp and the one before it, bool [n].

    stamps: int64 [n] in units of ``unit`` seconds. may_jump: whether the format's clock may be set anew.

    A step back counts if the next stamp is below the one before the step as well; a single stamp out of order is not a
    new clock.
    """
    jumps = np.zeros(len(stamps), bool)
    if len(stamps) < 2:
        return jumps
    steps, usual = np.diff(stamps), usual_step(stamps)
    jumps[1:] = steps > max(longest_gap(may_jump=may_jump) / unit, 10 * usual)
    back = np.flatnonzero(steps < -max(SLACK / unit, _STEPS * usual))
    back = back[back + 2 < len(stamps)]
    jumps[back[stamps[back + 2] < stamps[back]] + 1] = True
    return jumps


def laid_out(stamps: np.ndarray, jumps: np.ndarray, last: int = 0) -> tuple[np.ndarray, int] | None:
    """The times of frames int64 [n], increasing, and the time at which the last frame leaves the screen.

    stamps: int64 [n] in order of display. jumps: bool [n], where the clock was set anew: the frame follows the one
    before it at the usual step. last: the time that the last frame is shown for; 0 if unknown.

    A stamp below an earlier one counts as equal to it. Frames of equal stamps follow each other at the usual step,
    yet before the next frame is due. The result is None if the stamps tell no time.
    """
    if not len(stamps) or int(stamps.max()) - int(stamps.min()) >= 1 << 62:
        return None
    steps = np.diff(stamps)
    usual = _usual(steps[~jumps[1:]])
    times = np.concatenate([[0], np.cumsum(np.where(jumps[1:], usual, steps))])
    times = np.maximum.accumulate(times)
    if times[-1] > _LONGEST_SPAN or (len(times) > 1 and times[-1] == 0):
        return None
    return _spread(times, usual, last or usual)


def _spread(times: np.ndarray, usual: int, last: int) -> tuple[np.ndarray, int]:
    """The times with equal ones drawn apart, and the end. usual, last: the steps after most frames and the last one."""
    value, first, count = np.unique(times, return_index=True, return_counts=True)
    step = np.minimum(np.diff(value, append=value[-1] + usual) // count, usual)
    if count[-1] > 1 and len(count) > 1:  # It is not known when the frame after these would be due.
        last = step[-1] = max(step[-2], 1)
    spread = times + (np.arange(len(times)) - np.repeat(first, count)) * np.repeat(step, count)
    return spread, int(spread[-1] + last)


class StreamClock:
    """The shift, in seconds, that makes a stream's times after a jump follow those before it.

    longest: the seconds above which a gap is a jump. resets: the number of jumps.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._before: float | None = None
        self._step = 0.0
        self.shift = 0.0
        self.resets = 0

    def offset(self, time: float) -> float:
        """The shift of a packet that is decoded at ``time``."""
        before, self._before = self._before, time
        if before is None:
            return self.shift
        step = time - before
        if step > self._longest or step < -SLACK:
            self.shift += self._step - step
            self.resets += 1
        else:
            self._step = max(step, 0.0)
        return self.shift
