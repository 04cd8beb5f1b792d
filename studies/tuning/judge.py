"""Judging settings on the parts of a tuning, and how certain the difference of two of them is.

The parts of one class split have no judging clip in common, so that their variances add up. Those of several class
splits divide the same clips; there the standard error of the mean is taken as the mean of the standard errors, which it
cannot exceed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ...heads.settings import Recipe
from ...runs.evaluation import Evaluation
from ...runs.filling_choice import provisional
from ...runs.measure import measure
from ...runs.over_clips import clip_uncertainty
from ...runs.ready import built_head, learns, recipe_of
from ...runs.redraw import Source, outcomes
from ...runs.spec import RunSpec
from ...runs.statistics import Uncertainty
from ...runs.train import train
from .data import Part, judging_protocol

Beat = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What the parts say of some settings."""

    accuracy: Sequence[float]
    """The accuracy on each part, or the measure that the protocol has in its place, in 0..1."""
    right_bits: Sequence[np.ndarray | None]
    """The outcomes of the queries of each part's episodes as bits; None where episodes are not balanced."""


def judged(spec: RunSpec, parts: Sequence[Part], episodes: int, beat: Beat = lambda: None) -> Judged:
    """What the parts say of a run's settings. beat: called after each part.

    Raises FsmmError where the settings cannot be used, or the training diverges.
    """
    found = []
    for part in parts:
        found.append(_on(spec, part, episodes))
        beat()
    return Judged(accuracy=[value for value, _ in found], right_bits=[bits for _, bits in found])


def _on(spec: RunSpec, part: Part, episodes: int) -> tuple[float, np.ndarray | None]:
    """The accuracy on one part and the outcomes of its queries as bits, after a training of its own."""
    torch.manual_seed(spec.train_seed)
    head = built_head(spec, part)
    if learns(head):
        seen = None if part.val is None else provisional(head, part.val, spec, part).bank
        train(
            head,
            part.base,
            seen,
            spec.protocol,
            recipe=_quiet(recipe_of(head, spec)),
            seed=spec.train_seed,
            modalities=spec.train_modalities,
            missing=spec.losses,
        )
    protocol = judging_protocol(spec.protocol, part.test)
    test = provisional(head, part.test, spec, part)
    result = measure(test.head, test.bank, protocol, episodes, transductive=spec.resolved.transductive)
    bits = result.right_bits if isinstance(result, Evaluation) else None
    return float(result.summary()["accuracy"]), bits


def _quiet(recipe: Recipe) -> Recipe:
    """The recipe without a limit of time, by which settings would be judged by the machine's load."""
    return replace(recipe, minutes=0.0)


def mean_of(parts: Sequence[Part], values: Sequence[float]) -> float:
    """The mean over class splits of the mean over the parts of each."""
    return float(sum(weight * value for weight, value in zip(_weights(parts), values)))


def _weights(parts: Sequence[Part]) -> list[float]:
    splits = [part.split for part in parts]
    return [1 / (len(set(splits)) * splits.count(split)) for split in splits]


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How certain it is that some settings are better than the default."""

    difference: float
    """The accuracy of the best settings minus that of the default, in -1..1."""
    ci95: float | None = None
    """The 95 % half width of the difference over clips; None where it has no value."""
    p: float | None = None
    """Its two-sided p-value."""
    p_corrected: float | None = None
    """The p-value times the number of settings that were tried, at most 1."""
    held_out: float | None = None
    """The difference where each part judges what the other parts have picked; None for a single part."""
    reason: str | None = None
    """Why there is no interval; None where there is one."""

    @property
    def differs(self) -> bool | None:
        """Whether the best settings surely differ from the default; None where that cannot be said."""
        return None if self.p_corrected is None else self.p_corrected < 0.05

    def to_dict(self) -> dict[str, Any]:
        """The fields and ``differs`` as plain JSON values."""
        return {**asdict(self), "differs": self.differs}


def certainty(
    parts: Sequence[Part], spec: RunSpec, best: Judged, default: Judged, *, tried: Sequence[Sequence[float]]
) -> Certainty:
    """How certain the choice of the best settings is.

    tried: the accuracies on each part of all settings that were tried, the default's among them.
    """
    accuracy = [a - b for a, b in zip(best.accuracy, default.accuracy)]
    difference, held_out = mean_of(parts, accuracy), _held_out(parts, default, tried)
    found = [
        _of_part(part, spec, one, other)
        for part, one, other in zip(parts, best.right_bits, default.right_bits)
    ]
    reason = next((each.reason for each in found if each.reason), None)
    if reason is not None:
        return Certainty(difference=difference, held_out=held_out, reason=reason)
    error, freedom = _together(parts, found)
    if error == 0:
        why = "both give the same answer to every query" if difference == 0 else "all differ alike"
        return Certainty(difference=difference, held_out=held_out, reason=why)
    whole = Uncertainty(error=error, freedom=freedom)
    p = whole.p_value(difference)
    return Certainty(
        difference=difference,
        ci95=whole.half_width(),
        p=p,
        p_corrected=min(p * max(len(tried) - 1, 1), 1.0),
        held_out=held_out,
    )


def _of_part(part: Part, spec: RunSpec, one: np.ndarray | None, other: np.ndarray | None) -> Uncertainty:
    """The uncertainty of the difference of two outcomes on one part over its clips."""
    if one is None or other is None:
        return Uncertainty(reason="the episodes have no interval over clips (see docs/statistics.md)")
    source = Source.of(part.test, judging_protocol(spec.protocol, part.test))
    draws = source.draws(0, len(one))
    right: Mapping[int, np.ndarray] = dict(enumerate(outcomes(bits, source.queries) for bits in (one, other)))
    difference = right[0].astype(np.int8) - right[1]
    if not difference.any():
        return Uncertainty(error=0.0, freedom=math.inf)
    return clip_uncertainty(difference, draws, transductive=spec.resolved.transductive)


def _together(parts: Sequence[Part], found: Sequence[Uncertainty]) -> tuple[float, float]:
    """The standard error of the mean over parts, and its degrees of freedom."""
    total, least = 0.0, math.inf
    for split in dict.fromkeys(part.split for part in parts):
        own = [
            (weight**2 * each.variance, each.freedom)
            for part, weight, each in zip(parts, _weights(parts), found)
            if part.split == split and each.variance > 0
        ]
        variance = sum(value for value, _ in own)
        total += math.sqrt(variance)
        if variance:
            least = min(least, variance**2 / sum(value**2 / freedom for value, freedom in own))
    return total, least


def _held_out(parts: Sequence[Part], default: Judged, tried: Sequence[Sequence[float]]) -> float | None:
    """The gain over the default where each part judges the settings that are best on the others."""
    if len(parts) < 2:
        return None
    gains = []
    for number in range(len(parts)):
        others = [i for i in range(len(parts)) if i != number]
        rest = [parts[i] for i in others]
        winner = max(tried, key=lambda accuracy: mean_of(rest, [accuracy[i] for i in others]))
        gains.append(winner[number] - default.accuracy[number])
    return mean_of(parts, gains)
