"""The difference of two heads of which one or both were trained with several seeds, on the same episodes.

A head that was trained with n seeds is judged by the mean of its outcomes over them, so that no seed can be picked. The
variance of that mean over other trainings, s^2 / n, is added to the variance over draws, over clips and over classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..runs.over_clips import clip_uncertainty
from ..runs.statistics import Draws, Uncertainty, class_uncertainty, draw_uncertainty
from .pairs import Estimate, Pair, pair_of_outcomes


def pair_of_seeds(
    names: tuple[str, str],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    draws: Draws,
    *,
    transductive: bool,
) -> Pair:
    """The pair of two heads by the outcomes of their queries, bool [E, Q] for each seed of their training.

    transductive: whether one of the heads decides the queries of an episode together.
    """
    if len(first) == len(second) == 1:
        return pair_of_outcomes(names, first[0], second[0], draws, transductive=transductive)
    outcome: np.ndarray = _mean(first) - _mean(second)
    values = outcome.mean(1)
    difference = float(values.mean())
    clips = clip_uncertainty(outcome, draws, transductive=transductive)
    least = max(clips.variance - float(values.var()) / len(values), 0.0)
    classes = class_uncertainty(values, draws, least)
    return Pair(
        first=names[0],
        second=names[1],
        difference=difference,
        clips=Estimate.of(with_seeds(clips, first, second), difference),
        classes=Estimate.of(with_seeds(classes, first, second), difference),
    )


def over_draws(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> Estimate:
    """How certain the difference of two heads is over episode draws, by their accuracies [E] for each seed."""
    values: np.ndarray = _mean(first) - _mean(second)
    return Estimate.of(with_seeds(draw_uncertainty(values), first, second), float(values.mean()))


def seeded_name(name: str, seeds: int) -> str:
    """The name of a head by that of its first run.

    >>> seeded_name("relation", 3), seeded_name("relation", 1)
    ('relation, 3 seeds', 'relation')
    """
    return f"{name}, {seeds} seeds" if seeds > 1 else name


@dataclass(frozen=True, kw_only=True)
class SeededMean:
    """The mean accuracy of a head over the seeds of its training."""

    mean: float
    """The mean, in 0..1."""
    clips: Uncertainty
    """Its uncertainty over clips and training seeds."""
    classes: Uncertainty
    """Its uncertainty over classes and training seeds."""


def mean_over_seeds(seeds: Sequence[np.ndarray], draws: Draws, *, transductive: bool) -> SeededMean:
    """The mean accuracy of a head by the outcomes of its queries, bool [E, Q] for each seed of its training.

    transductive: whether the head decides the queries of an episode together.
    """
    outcome = _mean(seeds)
    values = outcome.mean(1)
    clips = clip_uncertainty(outcome, draws, transductive=transductive)
    least = max(clips.variance - float(values.var()) / len(values), 0.0)
    classes = class_uncertainty(values, draws, least)
    return SeededMean(
        mean=float(values.mean()), clips=with_seeds(clips, seeds), classes=with_seeds(classes, seeds)
    )


def _mean(seeds: Sequence[np.ndarray]) -> np.ndarray:
    """The mean over seeds of the outcome of each query, float64 [E, Q], or of the accuracy of each episode [E]."""
    mean: np.ndarray = np.stack(seeds).mean(0, dtype=np.float64)
    return mean


def with_seeds(found: Uncertainty, *heads: Sequence[np.ndarray]) -> Uncertainty:
    """An uncertainty with that of the training seeds of heads added; the degrees of freedom are Satterthwaite's.

    heads: the outcomes [E, Q], or the accuracies [E], of each seed, for each head; a head with one seed adds nothing.
    """
    if found.reason or found.alike is not None:
        return found
    parts = [(found.variance, found.freedom)]
    for seeds in heads:
        if len(seeds) > 1:
            means = [float(outcome.mean(dtype=np.float64)) for outcome in seeds]
            parts.append((float(np.var(means, ddof=1)) / len(means), len(means) - 1.0))
    total = sum(variance for variance, _ in parts)
    if total <= 0:
        return found
    freedom = total**2 / sum(variance**2 / free for variance, free in parts)
    return replace(found, error=math.sqrt(total), freedom=freedom)
