"""The difference of two heads on the same episodes, with its uncertainty and p-values.

Two heads that are equal in distribution differ on any one test set, and with enough episodes that difference is certain
for this test set alone. A pair is therefore judged over clips and over classes, by the estimators of single runs on
the differences of outcomes; over episode draws only where nothing else can be had, or where it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError
from ..runs.evaluation import Evaluation
from ..runs.over_clips import clip_uncertainty
from ..runs.statistics import Draws, Uncertainty, class_uncertainty

OVER = ("clips", "classes", "draws")


@dataclass(kw_only=True)
class Estimate:
    """How certain a difference is over one kind of chance; all values are None where it cannot be said."""

    ci95: float | None
    """The 95 % half width of the difference."""
    p: float | None
    """The two-sided p-value of Student's t."""
    p_holm: float | None = None
    """The p-value after Holm's correction over all pairs of the comparison."""
    one_sided: bool = False
    """Whether the half width is a bound, since all outcomes differ alike: by nothing, or by everything."""
    reason: str | None = None
    """The sentence that says why there is no value; None where there is one."""

    @classmethod
    def of(cls, found: Uncertainty, difference: float) -> Estimate:
        """The estimate of a difference with this uncertainty."""
        if found.reason:
            return cls(ci95=None, p=None, reason=found.reason)
        return cls(ci95=found.half_width(), p=found.p_value(difference), one_sided=found.alike is not None)


@dataclass(kw_only=True)
class Pair:
    """The comparison of two runs on the same episodes."""

    first: str
    """The name of the first run."""
    second: str
    """The name of the second run."""
    difference: float
    """The difference of the mean accuracies, first minus second."""
    clips: Estimate | None = None
    """How certain the difference is for these classes with other clips; None where it was not looked for."""
    classes: Estimate | None = None
    """How certain the difference is for other classes; None where it was not looked for."""
    draws: Estimate | None = None
    """How certain the difference is for other episodes of this test set; None where it was not looked for."""


def pair_of_outcomes(
    names: tuple[str, str], first: np.ndarray, second: np.ndarray, draws: Draws, *, transductive: bool
) -> Pair:
    """The pair of two heads by the outcomes of their queries, bool [E, Q] each, over clips and over classes.

    transductive: whether one of the heads decides the queries of an episode together.
    """
    outcome = first.astype(np.int8) - second
    values = outcome.mean(1, dtype=np.float64)
    difference = float(values.mean())
    clips = clip_uncertainty(outcome, draws, transductive=transductive)
    least = max(clips.variance - float(values.var()) / len(values), 0.0)
    classes = class_uncertainty(values, draws, least)
    return Pair(
        first=names[0],
        second=names[1],
        difference=difference,
        clips=Estimate.of(clips, difference),
        classes=Estimate.of(classes, difference),
    )


def paired(first: Evaluation, second: Evaluation, *, names: tuple[str, str] = ("first", "second")) -> Pair:
    """The pair of two results on the same balanced episodes, over clips and over classes, without run folders.

    Where one has more episodes, both are taken on those that they share.
    Raises UsageError where the episodes are not balanced, or not the same.
    """
    if first.source is None or second.source is None:
        reason = first.imbalance or second.imbalance
        raise UsageError(f"The results cannot be paired over clips and classes, since {reason}.")
    if first.first != second.first or first.source.check() != second.source.check():
        raise UsageError(
            "The results are of different episodes; evaluate both on the same bank and protocol."
        )
    shared = min(len(first.accuracy), len(second.accuracy))
    draws = first.source.draws(first.first, shared)
    one, other = (of.right[:shared] for of in (first, second))
    transductive = first.transductive or second.transductive
    pair = pair_of_outcomes(names, one, other, draws, transductive=transductive)
    correct([pair])
    return pair


def correct(pairs: Sequence[Pair]) -> None:
    """Fill in Holm's correction over all pairs, for each kind of chance, where there is a p-value."""
    for over in OVER:
        found: list[Estimate | None] = [getattr(pair, over) for pair in pairs]
        given = [estimate for estimate in found if estimate is not None and estimate.p is not None]
        for estimate, p in zip(given, holm([estimate.p or 0.0 for estimate in given])):
            estimate.p_holm = p


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down procedure (Scandinavian Journal of Statistics, 1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min((len(p) - rank) * p[i], 1.0))
        adjusted[i] = running
    return adjusted.tolist()
