"""How many episodes an evaluation draws: a number, or as many as its precision needs.

An evaluation has two kinds of chance. Its interval over episode draws shrinks as episodes are added; that over clips
does not shrink below what the test set allows. Episodes that make the first much smaller than the second say nothing
new. The number is found in steps that are the same for every batch size, device and number of workers, so that it
depends on the outcomes of the episodes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:  # The command line reads this file, and needs no numbers for its help.
    from .statistics import Uncertainty

SHARE = 0.2
"""Draws whose half width is this share of that over clips add 2 % to the latter."""
PLAIN_PRECISION = 0.25
"""The half width over draws, in points, that is aimed at where there is no interval over clips."""
FEWEST, MOST = 300, 100_000
PLANNED = 2000
"""The number of episodes for which a head's quickest way is chosen, when their number is not known."""


@dataclass(frozen=True)
class Auto:
    """As many episodes as are needed.

    >>> Auto.parse("auto:0.5"), str(Auto.parse("auto"))
    (Auto(precision=0.5), 'auto')
    >>> list(Auto().steps())[:6]
    [300, 400, 600, 800, 1100, 1500]
    """

    precision: float | None = None
    """The half width over draws, in points, that is enough; None asks for a fifth of the half width over clips."""

    def __post_init__(self) -> None:
        if self.precision is not None and not (self.precision > 0 and math.isfinite(self.precision)):
            raise UsageError(
                f"--episodes auto:{self.precision:g} has no meaning; the half width in points must be above 0, such as "
                "auto:0.5."
            )

    @classmethod
    def parse(cls, text: str) -> Auto:
        """The value of ``auto`` or ``auto:0.5``. Raises UsageError for any other text."""
        word, colon, points = text.partition(":")
        try:
            if word != "auto":
                raise ValueError
            return cls(float(points) if colon else None)
        except ValueError:
            raise UsageError(
                f"--episodes takes a whole number, auto, or auto:POINTS such as auto:0.5, not {text!r}."
            ) from None

    def __str__(self) -> str:
        return "auto" if self.precision is None else f"auto:{self.precision:g}"

    def steps(self) -> Iterator[int]:
        """The numbers of episodes after which the precision is looked at, each about 1.4 times the one before."""
        count = FEWEST
        while count < MOST:
            yield count
            count = round(count * 1.4 / 100) * 100
        yield MOST

    def verdict(self, draws: Uncertainty, clips: Uncertainty, episodes: int) -> str | None:
        """The sentence that says why so many episodes are enough; None where more are needed.

        draws, clips: the uncertainty of the mean of these episodes over draws and over clips.
        """
        last = f"{episodes:,} episodes, the most that auto draws"
        if draws.reason or (clips.needs_more and self.precision is None):
            return None if episodes < MOST else f"{last}: {draws.reason or clips.reason}"
        goal, what = self._goal(clips)
        found = 100 * draws.half_width()
        if found <= goal:
            return f"{episodes:,} episodes: ± {found:.2g} points over draws is within {what}"
        return None if episodes < MOST else f"{last}: ± {found:.2g} points over draws exceeds {what}"

    def _goal(self, clips: Uncertainty) -> tuple[float, str]:
        """The half width over draws that is enough, in points, and what it is."""
        if self.precision is not None:
            return self.precision, f"the {self.precision:g} points asked for"
        if clips.reason:
            return PLAIN_PRECISION, f"{PLAIN_PRECISION:g} points (there is no interval over clips)"
        goal = 100 * SHARE * clips.half_width()
        return goal, f"a fifth of ± {100 * clips.half_width():.2g} over clips"


Extent = int | Auto


def planned(extent: Extent) -> int:
    """The number of episodes that an evaluation is planned for."""
    return extent if isinstance(extent, int) else PLANNED
