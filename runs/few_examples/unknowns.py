"""Clips of no class: how near a clip is to the nearest class, and from where on it counts as unknown.

Nearness is the cosine of a clip to the mean of a class, averaged over the clip's modalities, of the nearest class. With
a base set its mean is subtracted from all features first. The threshold is the one that lets through as many clips of
the known classes as was asked: of the base classes, in tasks like the user's, where it is also known how many clips of
other classes it stops; without a base set, of the examples that were left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from .examples import Examples
from .leave_out import rounds, support_rows

_TASKS = 100
_QUERIES = 5
_FEWEST_BASE = 4


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Nearness of clips of known classes, and of others where a base set told it, each in ascending order."""

    known: tuple[float, ...] = ()
    """The nearness of clips whose class was known."""
    unknown: tuple[float, ...] = ()
    """The nearness of clips of other base classes; empty without a base set."""
    source: str = ""
    """Where they come from: "base" or "examples"."""

    def at(self, error: float) -> float:
        """The nearness below which a clip is unknown, so that this share of the known ones would be.

        It is minus infinity where there are too few clips to tell.
        """
        count = int(np.floor(error * (len(self.known) + 1)))
        return self.known[count - 1] if 0 < count <= len(self.known) else -np.inf

    def stopped(self, error: float) -> float | None:
        """The share of clips of other base classes that are below the threshold; None without a base set."""
        if not self.unknown:
            return None
        return float((np.asarray(self.unknown) <= self.at(error)).mean())

    def area(self) -> float | None:
        """The area under the curve of known against unknown base clips; None without a base set."""
        if not self.unknown or not self.known:
            return None
        return area_under_curve(np.asarray(self.known), np.asarray(self.unknown))


def area_under_curve(known: np.ndarray, unknown: np.ndarray) -> float:
    """The probability that a known clip is nearer than an unknown one, ties counting half.

    >>> area_under_curve(np.array([0.9, 0.5]), np.array([0.1, 0.5]))
    0.875
    """
    order = np.sort(unknown)
    below, up_to = np.searchsorted(order, known, "left"), np.searchsorted(order, known, "right")
    return float((below + up_to).mean() / 2 / len(unknown))


class Nearness:
    """The nearness of clips to the classes of some supports."""

    def __init__(
        self, supports: Examples, label: Tensor, classes: int, means: Mapping[str, Tensor] | None = None
    ) -> None:
        """``means``: the mean feature [D] of base classes by modality, which is subtracted."""
        self._means = means or {}
        self._label, self._classes = label, classes
        self._points = {name: self._unit(name, supports) for name in supports.modalities}
        self._present = {name: stream.present for name, stream in supports.streams.items()}

    def of(self, clips: Examples) -> np.ndarray:
        """The nearness [q] of clips; minus infinity for a clip without any modality."""
        points = {name: self._unit(name, clips) for name in self._points}
        present = {name: clips.streams[name].present for name in points}
        every = torch.arange(self._classes)
        supports = support_rows(self._label, self._classes)
        return self._nearest(points, present, self._class_means(supports[every]))

    def left_out(self) -> np.ndarray:
        """The nearness [m] of the supports that can be left out, one of each class at a time, to the others."""
        supports, found = support_rows(self._label, self._classes), []
        for left in rounds(self._label, self._classes):
            without = supports.masked_fill((supports == left[:, None]) & (left >= 0)[:, None], -1)
            rows = left[left >= 0]
            points = {name: x[rows] for name, x in self._points.items()}
            present = {name: p[rows] for name, p in self._present.items()}
            found.append(self._nearest(points, present, self._class_means(without)))
        return np.concatenate(found) if found else np.zeros(0)

    def _unit(self, name: str, clips: Examples) -> Tensor:
        stream = clips.streams[name]
        x = stream.pooled() - self._means.get(name, torch.zeros(()))
        return F.normalize(x, dim=-1) * stream.present[:, None]

    def _class_means(self, supports: Tensor) -> dict[str, Tensor]:
        """The means [N, D] of the classes' supports, of length one; zeros where a class has none in a modality."""
        found = {}
        for name, x in self._points.items():
            there = (supports >= 0) & self._present[name][supports.clamp(min=0)]
            total = (x[supports.clamp(min=0)] * there[..., None]).sum(1)
            found[name] = F.normalize(total, dim=-1)
        return found

    def _nearest(
        self, points: Mapping[str, Tensor], present: Mapping[str, Tensor], means: Mapping[str, Tensor]
    ) -> np.ndarray:
        total = sum((points[name] @ means[name].T for name in points), torch.zeros(()))
        count = sum((present[name].float() for name in points), torch.zeros(()))
        nearest = (total / torch.clamp(count, min=1)[:, None]).amax(1)
        return np.asarray(nearest.masked_fill(count == 0, -torch.inf).double())


def threshold_by_examples(nearness: Nearness) -> Threshold:
    """The threshold that the examples tell, each left out in turn."""
    return Threshold(known=tuple(np.sort(nearness.left_out()).tolist()), source="examples")


def threshold_by_base(base: FeatureBank, *, ways: int, shots: Sequence[int], seed: int = 0) -> Threshold:
    """The threshold that base classes tell, in tasks with as many classes and examples as the user's where possible.

    shots: the numbers of examples of the user's classes. Half of the drawn base classes are unknown to the task. It is
    empty where there are fewer than four base classes with enough clips.
    """
    shot = int(np.median(shots))
    label = base.label.cpu().numpy()
    rows = {c: np.flatnonzero(label == c) for c in range(len(base.class_names))}
    usable = [c for c, held in rows.items() if len(held) > shot]
    if len(usable) < _FEWEST_BASE:
        return Threshold()
    count = min(ways, len(usable) // 2)
    chance = np.random.Generator(np.random.Philox(seed))
    known, unknown = [], []
    means, clips = base.means(), _pooled(base)
    for _ in range(_TASKS):
        drawn = chance.permutation(usable)[: 2 * count]
        picked = [chance.permutation(rows[c])[: shot + _QUERIES] for c in drawn]
        supports = clips[np.concatenate([own[:shot] for own in picked[:count]])]
        near = Nearness(supports, torch.arange(count).repeat_interleave(shot), count, means)
        known.append(near.of(clips[np.concatenate([own[shot:] for own in picked[:count]])]))
        unknown.append(near.of(clips[np.concatenate([own[shot:] for own in picked[count:]])]))
    return Threshold(
        known=tuple(np.sort(np.concatenate(known)).tolist()),
        unknown=tuple(np.sort(np.concatenate(unknown)).tolist()),
        source="base",
    )


def _pooled(bank: FeatureBank) -> Examples:
    every = torch.arange(len(bank))
    return Examples({name: table.pooled().gather(every) for name, table in bank.tables.items()})
