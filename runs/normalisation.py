"""How features are brought to one scale, and the choice among the ways by base and val classes.

What is computed depends on whether the method reads steps. ``none`` leaves features as they are. Where steps are read,
``l2`` and ``per-step`` scale every step to length one. Where they are not, ``l2`` averages the steps as they are and
scales the mean to length one, and ``per-step`` scales every step to length one and then averages, so that a clip whose
steps differ stays short. ``centre-l2`` is ``l2`` of features from which the mean of the base classes is subtracted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol, TooFew
from ..errors import UsageError
from ..heads.build import inputs_of
from ..heads.multimodal.weights import Join, class_mean_views, correct_by_class, difference
from ..heads.settings import Recipe
from .tasks import training_protocol

FEWEST_CLASSES = 4  # Fewer base classes are not halved.
SHOTS = (1, 5)
SEED = 0  # The choice depends on the clips and the task alone, not on a run's seeds.


@dataclass(frozen=True, kw_only=True)
class NormalisationChoice:
    """The normalisation that base and val classes chose, and their accuracies, in 0..1."""

    pick: str
    """The normalisation that was chosen."""
    scores: Mapping[str, float]
    """The accuracy of class means with each normalisation, as the mean over classes, one shot and five."""
    gain: float
    """The accuracy of the best normalisation minus that of l2."""
    gain_interval: float
    """The 95 % half width of ``gain`` over classes."""
    base_classes: int
    """The number of base classes that were classified; each half is centred by the mean of the other half."""
    val_classes: int
    """The number of val classes that were classified."""


def prepared(
    bank: FeatureBank, how: str, *, pools: bool, means: Mapping[str, Tensor] | None = None
) -> FeatureBank:
    """The bank as a head reads it. pools: whether the head reads features averaged over time.

    means: the vector [D] that ``centre-l2`` subtracts, for each stream key.
    """
    if not pools:
        return bank.normalised(how, means)
    if how == "per-step":
        return bank.normalised(how).pooled()
    return bank.pooled().normalised(how, means)


def choose_normalisation(
    base: FeatureBank | None, val: FeatureBank | None, protocol: Protocol, *, pools: bool, late: bool
) -> NormalisationChoice:
    """The normalisation with which class means classify base and val classes best.

    l2 is kept unless another is better by more than one standard error over classes. How features are scaled belongs to
    the features more than to the shots of a task, so that the episodes have one shot and five, whatever the run has.

    base, val: the clips as they are, with their steps. pools: whether the head reads features averaged over time.
    late: whether modalities are joined by their posteriors instead of their distances.
    Raises UsageError where there are neither base nor val classes to choose by.
    """
    ways = ["l2", "none", "centre-l2", *(["per-step"] if pools else [])]
    parts = _parts(base, val)
    by_way = {how: _accuracies(parts, how, protocol, pools=pools, late=late) for how in ways}
    counts = [sum(len(a) for n, a in by_way["l2"] if n == name) for name in ("base", "val")]
    if not sum(counts):
        raise UsageError(
            "--normalise auto chooses by base and val classes, and there are none with enough clips for the task; "
            "choose none, l2 or per-step."
        )
    accuracy = {how: np.concatenate([a for _, a in found]) for how, found in by_way.items()}
    scores = {how: float(values.mean()) for how, values in accuracy.items()}
    best = max(scores, key=lambda how: scores[how])
    better = accuracy[best] - accuracy["l2"]
    gain, interval = difference(better)
    error = float(better.std(ddof=1)) / math.sqrt(len(better)) if len(better) > 1 else math.inf
    return NormalisationChoice(
        pick=best if gain > error else "l2",
        scores=scores,
        gain=gain,
        gain_interval=interval,
        base_classes=counts[0],
        val_classes=counts[1],
    )


@dataclass(frozen=True)
class _Part:
    """Clips of classes on which normalisations are tried, with the other classes whose mean centres them."""

    name: str
    bank: FeatureBank
    centre: FeatureBank


def _parts(base: FeatureBank | None, val: FeatureBank | None) -> list[_Part]:
    """Each half of the base classes, centred by the other half, and the val classes, centred by the base classes."""
    found = []
    if base is not None and not base.multi and len(base.class_names) >= FEWEST_CLASSES:
        one, other = halves_of(base)
        found += [_Part("base", one, other), _Part("base", other, one)]
    if val is not None and not val.multi and len(val.class_names) > 1:
        found.append(_Part("val", val, val if base is None else base))
    return found


def halves_of(base: FeatureBank) -> tuple[FeatureBank, FeatureBank]:
    """The clips of two halves of the classes of a bank with one label a clip, which are always the same halves."""
    order = np.random.Generator(np.random.Philox(SEED)).permutation(len(base.class_names))
    return of_classes(base, np.sort(order[0::2])), of_classes(base, np.sort(order[1::2]))


def of_classes(bank: FeatureBank, classes: np.ndarray) -> FeatureBank:
    """The clips of some classes of a bank with one label a clip, int [C'] in ascending order."""
    part = bank.rows(np.flatnonzero(np.isin(bank.label.cpu().numpy(), classes)))
    index = torch.from_numpy(classes).to(bank.device)
    return replace(
        part,
        label=torch.searchsorted(index, part.label),
        class_names=[bank.class_names[c] for c in classes],
        class_id=bank.class_id[index],
        words=None if bank.words is None else bank.words[index],
    )


def _accuracies(
    parts: list[_Part], how: str, protocol: Protocol, *, pools: bool, late: bool
) -> list[tuple[str, np.ndarray]]:
    """The mean accuracy over ``SHOTS`` of each class of each part that can serve the task, with the part's name."""
    found = []
    for part in parts:
        centre = prepared(part.centre, "none", pools=pools)
        means = centre.means() if how == "centre-l2" else None
        bank = prepared(part.bank, how, pools=pools, means=means).pooled()
        each = [_of_classes(bank, replace(protocol, k_shot=shots), late=late) for shots in SHOTS]
        accuracy = np.nanmean(np.stack(each), axis=0) if any(np.isfinite(a).any() for a in each) else each[0]
        found.append((part.name, accuracy[np.isfinite(accuracy)]))
    return found


def _of_classes(bank: FeatureBank, protocol: Protocol, *, late: bool) -> np.ndarray:
    """The accuracy of class means on each class of a pooled bank, [C]; NaN where the classes cannot serve the task."""
    task = training_protocol(protocol, Recipe(), bank, seed=SEED)
    factors = torch.ones(1, len(bank.tables), device=bank.device)
    join: Join = _mean_posterior if late else _summed
    try:
        right, asked = correct_by_class(
            bank, task, factors, views=class_mean_views(inputs_of(bank)), join=join
        )
    except TooFew:
        return np.full(len(bank.class_names), np.nan)
    return np.where(asked > 0, right[0] / np.maximum(asked, 1), np.nan)


def _mean_posterior(logits: Tensor, factors: Tensor) -> Tensor:
    return (torch.softmax(logits, -1) * factors[:, None, None, None]).sum(0)


def _summed(logits: Tensor, factors: Tensor) -> Tensor:
    return torch.einsum("mbqn,m->bqn", logits, factors)
