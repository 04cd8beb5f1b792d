"""A part of a film: the frames that appear from one instant up to another, numbered from 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..datasets.base import Span
from .film import Film, Shown

_SAME = 1e-6  # seconds; times that differ by less are one, since seconds are rounded


class Excerpt:
    """The frames of a film that tells time whose stamps lie in a span; a :class:`Film` itself.

    lead: the seconds from the file's beginning, from which the span counts, to the film's first frame.

    If no frame appears within the span, the one on screen at its start is taken; the excerpt has no frame if none is.
    """

    def __init__(self, film: Film, span: Span, lead: float) -> None:
        self._film = film
        self.unit, self.tells_time = film.unit, film.tells_time
        seconds = (film.times - film.times[:1]) * film.unit + lead
        self._first, last = (
            int(n) for n in np.searchsorted(seconds, np.array([span.start, span.end]) - _SAME)
        )
        is_over = len(seconds) and span.start >= (film.end - int(film.times[0])) * film.unit + lead
        if self._first == last and not is_over:
            self._first = max(last - 1, 0)
        self.times = film.times[self._first : last]
        self.end = film.end
        if len(self.times):
            end = min(int(film.times[0]) + (span.end - lead) / film.unit, film.end)
            self.end = max(round(end), int(self.times[-1]) + 1)

    def show(self, wanted: Sequence[int]) -> Iterator[Shown]:
        for number, frame, turn in self._film.show([number + self._first for number in wanted]):
            yield number - self._first, frame, turn
