"""Honest intervals for episodic accuracies and for their paired differences.

There are three intervals for three questions (docs/statistics.md): how the accuracy would vary if other episodes were
drawn from the same test set, if the test classes had other clips (runs/over_clips.py), and if there were other test
classes. The last two come from the infinitesimal jackknife (Wager and Athey 2018) over the same episodes. Each works on
accuracies and on differences of accuracies alike: an outcome is 1 or 0 for one head, and 1, 0 or -1 for one head minus
another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST_FREEDOM = 5.0
"""Fewer degrees of freedom than this are not taken for noise: the floors of a variance bound it from below."""
SAME = "every episode has the same value"
FEW = "there are fewer than two episodes"


@dataclass(frozen=True, kw_only=True)
class Draws:
    """The clips and classes of E balanced episodes of W ways, K shots and Q queries a class, over n clips."""

    clip_class: np.ndarray
    """int64 [n], the class of each clip."""
    classes: np.ndarray
    """int [E, W], the classes of each episode."""
    support: np.ndarray
    """int [E, W, K], the supports of each episode."""
    query: np.ndarray
    """int [E, W * Q], the queries of each episode, in the order in which they were classified."""
    way: np.ndarray
    """int [E, W * Q], the place of each query's class among the classes of its episode, 0..W-1."""

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, part: slice) -> Draws:
        """The draws of some of the episodes."""
        return Draws(
            clip_class=self.clip_class,
            classes=self.classes[part],
            support=self.support[part],
            query=self.query[part],
            way=self.way[part],
        )

    @property
    def ways(self) -> int:
        return self.classes.shape[1]

    @property
    def shots(self) -> int:
        return self.support.shape[2]

    @property
    def queries(self) -> int:
        """The number of queries of a class."""
        return self.query.shape[1] // max(self.ways, 1)

    def class_times(self) -> np.ndarray:
        """The number of episodes that hold each class, float64 [C]."""
        size = int(self.clip_class.max(initial=-1)) + 1
        return np.bincount(self.classes.ravel(), minlength=size).astype(float)


@dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """The standard error of a mean, or a bound where all outcomes are alike, or the reason why neither can be had."""

    error: float = math.nan
    """The standard error; NaN where it has no value."""
    freedom: float = 1.0
    """The degrees of freedom of Student's t."""
    alike: float | None = None
    """The number of independent units (episodes, clips or classes) where the outcomes of all are alike, else None."""
    reason: str | None = None
    """The sentence that says why there is no interval; None where there is one."""
    needs_more: bool = False
    """Whether more episodes would give it an interval."""

    @property
    def variance(self) -> float:
        """The square of the standard error; 0 where it has no value."""
        return 0.0 if math.isnan(self.error) else self.error**2

    def half_width(self, confidence: float = 0.95) -> float:
        """The half width of the interval; NaN where it has no value.

        Where all outcomes are alike it is the one-sided bound of Clopper and Pearson: had a share q of units another
        outcome, n units would all be alike with probability (1 - q)^n. About 3 / n for 95 %.

        >>> round(Uncertainty(alike=300).half_width(), 4)
        0.0099
        """
        from scipy.special import stdtrit

        if self.alike is not None:
            return float(1 - (1 - confidence) ** (1 / self.alike))
        return float(stdtrit(self.freedom, 0.5 + confidence / 2)) * self.error

    def p_value(self, mean: float) -> float:
        """The two-sided p-value of the hypothesis that the true mean is 0; NaN where it has no value."""
        from scipy.special import stdtr

        if self.alike is not None:
            return 1.0 if mean == 0 else float(min(2 * 0.5**self.alike, 1.0))
        return float(2 * stdtr(self.freedom, -abs(mean) / self.error))


def interval_summary(found: Mapping[str, Uncertainty]) -> dict[str, Any]:
    """The half widths at 95 % by name, with ``one_sided`` and ``no_interval``.

    A half width without a value is None, and ``no_interval`` has the sentence that says why. ``one_sided`` lists those
    that are bounds, since all outcomes are alike.
    """
    return {
        **{name: None if of.reason else of.half_width() for name, of in found.items()},
        "one_sided": [name for name, of in found.items() if of.alike is not None],
        "no_interval": {name: of.reason for name, of in found.items() if of.reason},
    }


def draw_uncertainty(values: np.ndarray) -> Uncertainty:
    """The uncertainty of the mean of values [E] over episode draws: sd / sqrt(E), by Student's t.

    Where every value is 1, or every value is 0 or -1, the E episodes are units that are all alike.
    """
    if len(values) < 2:
        return Uncertainty(reason=FEW, needs_more=True)
    if is_constant(values):
        return of_constant(float(values[0]), len(values))
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return Uncertainty(error=error, freedom=len(values) - 1)


def class_uncertainty(values: np.ndarray, draws: Draws, least: float = 0.0) -> Uncertainty:
    """The uncertainty of the mean of values [E] if there were other classes, by Student's t.

    least: the variance over clips, if it is known; other classes have other clips, so the variance is not below it.
    It has no value, and says why, where every episode holds all classes, and for fewer than three classes.

    With W ways of C classes, S_c = sum over the episodes that hold class c of (a_e - mean), and the noise that the
    draws of episodes add to sum_c S_c^2 taken off without bias (the terms of two different episodes alone count):

        V = (C - 1)/C (C / (C - W))^2 ( sum_c S_c^2 - W (1 - W/C) sum_e (a_e - mean)^2 ) / (E (E - 1))

    The sum of squares holds that noise all the same, and few classes may make most of it. The degrees of freedom are
    therefore those that give its spread (Satterthwaite 1946): 2 (V + var(a)/E)^2 / Var(V), at most C - 1.
    """
    if len(values) < 2:
        return Uncertainty(reason=FEW, needs_more=True)
    times = draws.class_times()
    classes, ways, episodes = int((times > 0).sum()), draws.ways, len(values)
    if classes <= ways:
        return Uncertainty(reason="every episode holds all classes")
    if classes < 3:
        return Uncertainty(reason="there are fewer than three classes")
    if is_constant(values) and not least:
        return of_constant(float(values[0]), classes)
    deviation = values - values.mean()
    total = np.bincount(draws.classes.ravel(), np.repeat(deviation, ways), minlength=len(times))
    noise = ways * (1 - ways / classes) * float((deviation**2).sum())
    scale = (classes - 1) / classes * (classes / (classes - ways)) ** 2 / (episodes * (episodes - 1))
    squares = scale * total[times > 0] ** 2
    variance = max(float(squares.sum()) - scale * noise, least) + float(values.var()) / episodes
    freedom = effective_freedom(variance, sum_of_squares_variance(squares), most=classes - 1)
    return Uncertainty(error=math.sqrt(variance), freedom=freedom)


def effective_freedom(variance: float, spread: float, most: float) -> float:
    """The degrees of freedom of an estimated variance whose own variance is ``spread`` (Satterthwaite 1946).

    They lie between LEAST_FREEDOM and ``most``.
    """
    wanted = 2 * variance**2 / spread if spread > 0 else most
    return float(min(max(wanted, LEAST_FREEDOM), most))


def sum_of_squares_variance(squares: np.ndarray) -> float:
    """The variance of a sum of n independent squares [n], which is not below that of squares of normal numbers."""
    n = len(squares)
    normal = 2 * float(squares.sum()) ** 2 / max(n - 1, 1)
    return max(normal, n * float(squares.var(ddof=1))) if n > 1 else normal


def is_constant(values: np.ndarray) -> bool:
    """Whether all values are the same."""
    return bool(values.min() == values.max())


def of_constant(value: float, units: float) -> Uncertainty:
    """The uncertainty where all units have this value; it is known for the values 1, 0 and -1 alone."""
    if value in (-1.0, 0.0, 1.0):
        return Uncertainty(alike=units)
    return Uncertainty(reason=SAME)
