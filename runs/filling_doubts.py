"""Where base or val classes prefer another way with clips that lack modalities than the one that was chosen.

The default promises to be at least as good as every way alone, within the paired interval over clips. The classes of
a test cannot be asked whether it is, but the base and val classes can: they are other classes as well. A choice for
which a part of them prefers another way by more than the interval, or all of them together another way by anything
that is worth printing, cannot be said to keep the promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .evaluation import Evaluation
from .over_clips import clip_uncertainty
from .result import Result
from .statistics import Uncertainty, draw_uncertainty

ALL = "all of these classes"
LEAST = 5e-4
"""A preference of all classes together that is smaller would be printed as 0.0 points."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """A way that some classes prefer to the chosen one beyond the interval of their difference."""

    part: str
    """The classes, in words."""
    way: str
    """The way that they prefer."""
    gain: float
    """The accuracy of that way minus the accuracy of the chosen one, in 0..1."""
    ci95: float
    """The 95 % half width of the gain: over clips, or over draws where there is no interval over clips; over classes
    where all classes were asked together."""


def doubts_of(part: str, results: Mapping[str, Result], chosen: str) -> list[Doubt]:
    """The ways that some classes prefer to the chosen one, the largest gain first.

    part: the classes, in words. results: the result of each way on the same episodes of these classes.
    """
    found = []
    for way, result in results.items():
        gain, ci95 = gain_of(result, results[chosen]) if chosen in results else (math.nan, math.nan)
        if gain > ci95:
            found.append(Doubt(part=part, way=way, gain=gain, ci95=ci95))
    return sorted(found, key=lambda doubt: -doubt.gain)


def doubt_of_all(part: str, results: Sequence[Mapping[str, Result]], chosen: str) -> list[Doubt]:
    """The way that all classes together prefer to the chosen one, by ``LEAST`` or more; at most one.

    part: the classes, in words. results: the result of each way on each part of them; every class counts once.
    """
    recalls = [
        {way: _recall(found) for way, found in each.items() if isinstance(found, Evaluation)}
        for each in results
    ]
    found = []
    for way in recalls[0] if all(chosen in each for each in recalls) else ():
        if all(way in each for each in recalls):
            gain = np.concatenate([each[way] - each[chosen] for each in recalls])
            ci95 = draw_uncertainty(gain).half_width()
            found.append(Doubt(part=part, way=way, gain=float(gain.mean()), ci95=ci95))
    return sorted((doubt for doubt in found if doubt.gain >= LEAST), key=lambda doubt: -doubt.gain)[:1]


def doubts_text(doubts: Iterable[Doubt], chosen: str) -> str:
    """The clause that says that the chosen way may be behind, by the largest gain on each part; "" without doubts.

    >>> found = doubts_text([Doubt(part="val classes", way="mean", gain=0.021, ci95=0.009)], "drop")
    >>> found.partition(": ")[2]
    'val classes prefer mean by 2.1 ± 0.9 points'
    """
    largest: dict[str, Doubt] = {}
    for doubt in doubts:
        largest.setdefault(doubt.part, doubt)
    if not largest:
        return ""
    preferred = "; ".join(
        f"{part} prefer {doubt.way} by {100 * doubt.gain:.1f} ± {100 * doubt.ci95:.1f} points"
        for part, doubt in largest.items()
    )
    return (
        f"what was chosen for what clips lack ({chosen}) may be behind another way on the tested classes: "
        f"{preferred}"
    )


def gain_of(result: Result, chosen: Result) -> tuple[float, float]:
    """The accuracy of a result minus the chosen way's, and its 95 % half width; NaN where there are no episodes."""
    values = result.per_episode().astype(np.float64) - chosen.per_episode()
    if not len(values):  # A whole split is classified at once.
        return math.nan, math.nan
    over_clips = _over_clips(result, chosen)
    return float(values.mean()), (over_clips or draw_uncertainty(values)).half_width()


def _over_clips(result: Result, chosen: Result) -> Uncertainty | None:
    """The uncertainty over clips of the difference of two results; None where there is none."""
    if not isinstance(result, Evaluation) or not isinstance(chosen, Evaluation) or result.draws is None:
        return None
    outcome = result.right.astype(np.int8) - chosen.right
    found = clip_uncertainty(outcome, result.draws, transductive=result.transductive)
    return None if found.reason else found


def _recall(result: Evaluation) -> np.ndarray:
    """The share of the queries of each class that are classified rightly, of the classes that have queries."""
    asked = result.confusion.sum(1)
    return (np.diag(result.confusion)[asked > 0] / asked[asked > 0]).astype(np.float64)
