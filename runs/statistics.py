"""Honest intervals for episodic accuracies.

There are three intervals for three questions (docs/statistics.md): how the accuracy would vary if other episodes were
drawn from the same test set, if the test classes had other clips, and if there were other test classes. The last two
come from the infinitesimal jackknife (Wager and Athey 2018) over the same episodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(kw_only=True)
class DrawCounts:
    """The draws of n clips and C classes in E episodes, as sums that can be merged over chunks."""

    clip_class: np.ndarray
    """int64 [n], the class of each clip."""
    members: np.ndarray
    """int64 [C], the number of clips of each class."""
    clip_times: np.ndarray
    """float64 [n], the number of times that each clip was drawn."""
    clip_value: np.ndarray
    """float64 [n], the sum of the values of the episodes that drew each clip."""
    class_times: np.ndarray
    """float64 [C], the number of times that each class was drawn."""
    class_value: np.ndarray
    """float64 [C], the sum of the values of the episodes that drew each class."""

    @classmethod
    def empty(cls, clip_class: np.ndarray, classes: int) -> DrawCounts:
        n = len(clip_class)
        members = np.bincount(clip_class, minlength=classes)
        return cls(
            clip_class=clip_class,
            members=members,
            clip_times=np.zeros(n),
            clip_value=np.zeros(n),
            class_times=np.zeros(classes),
            class_value=np.zeros(classes),
        )

    def add(self, classes: np.ndarray, clips: np.ndarray, value: np.ndarray) -> None:
        """Count B episodes by their classes [B, N], their clips [B, M] (-1 for no clip) and their values [B]."""
        n, c = len(self.clip_times), len(self.class_times)
        spread = np.repeat(value, clips.shape[1])
        flat = clips.ravel()
        if (flat < 0).any():
            spread, flat = spread[flat >= 0], flat[flat >= 0]
        self.clip_times += np.bincount(flat, minlength=n)
        self.clip_value += np.bincount(flat, spread, minlength=n)
        self.class_times += np.bincount(classes.ravel(), minlength=c)
        self.class_value += np.bincount(classes.ravel(), np.repeat(value, classes.shape[1]), minlength=c)

    def merge(self, other: DrawCounts) -> None:
        """Add the sums of other episodes over the same clips."""
        self.clip_times += other.clip_times
        self.clip_value += other.clip_value
        self.class_times += other.class_times
        self.class_value += other.class_value


def draw_interval(values: np.ndarray, confidence: float = 0.95) -> float:
    """The half width z sd / sqrt(E) of the normal interval over episode draws; NaN for fewer than two episodes."""
    if len(values) < 2:
        return math.nan
    return _normal_quantile(confidence) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


def clip_interval(values: np.ndarray, counts: DrawCounts, confidence: float = 0.95) -> float:
    """The half width of the interval that allows for other clips of the same classes.

    It is NaN, since it has no value, where a class is always drawn whole (shot + queries = all its clips), and for
    fewer than two episodes.
    """
    episodes, mean, variance = len(values), float(np.mean(values)), float(np.var(values))
    times = counts.class_times
    used = times > 0
    if episodes < 2:
        return math.nan
    ways_share = times / episodes  # Its expectation is W / C.
    drawn = np.bincount(counts.clip_class, counts.clip_times, minlength=len(times)) / np.maximum(times, 1)
    members = counts.members.astype(float)
    if (drawn[used] > members[used] - 1e-9).any():
        return math.nan
    share = np.where(used, drawn / np.maximum(members, 1), 0.0)
    class_sum = counts.class_value - mean * times
    cov = (counts.clip_value - mean * counts.clip_times) - share[counts.clip_class] * class_sum[
        counts.clip_class
    ]
    cov /= np.maximum(times, 1)[counts.clip_class]
    squares = np.bincount(counts.clip_class, cov**2, minlength=len(times))
    noise = members * variance * share * (1 - share) / np.maximum(times, 1)
    scale = (
        ways_share**2
        * (members - 1)
        / np.maximum(members, 1)
        * (members / np.maximum(members - drawn, 1e-9)) ** 2
    )
    total = float((scale * (squares - noise))[used].sum())
    return _normal_quantile(confidence) * math.sqrt(max(total, 0.0) + variance / episodes)


def class_interval(values: np.ndarray, counts: DrawCounts, ways: float, confidence: float = 0.95) -> float:
    """The half width of the interval that allows for other classes, by Student's t with C - 1 degrees of freedom.

    It is NaN, since it has no value, where every episode holds all classes, and for fewer than two episodes or three
    classes.
    """
    from scipy.stats import t

    episodes, mean, variance = len(values), float(np.mean(values)), float(np.var(values))
    classes = int((counts.class_times > 0).sum())
    if episodes < 2 or classes <= ways + 1e-9 or classes < 3:
        return math.nan
    share = ways / classes
    cov = (counts.class_value - mean * counts.class_times) / episodes
    squares = float((cov**2).sum())
    noise = classes * variance * share * (1 - share) / episodes
    total = (classes - 1) / classes * (classes / (classes - ways)) ** 2 * (squares - noise)
    return float(t.ppf(0.5 + confidence / 2, classes - 1)) * math.sqrt(max(total, 0.0) + variance / episodes)


def _normal_quantile(confidence: float) -> float:
    """The z for which a standard normal Z has P(|Z| < z) = confidence."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + confidence / 2)
