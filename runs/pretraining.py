"""The accuracy of a run on classes that its encoders may have met in training, and on those that they had not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cache.bank import FeatureBank
from ..cache.catalog import Catalog
from ..cache.pretraining.overlap import SCORES, Overlap, by_words, overlaps, training_set_of
from ..cache.schema import SCORE, list_streams


def training_sets(folder: Path, bank: FeatureBank) -> list[str]:
    """The names of the training sets of a bank's encoders of which the classes are known, sorted."""
    return sorted({name for s in bank.streams.values() if (name := training_set_of(folder, s)) is not None})


def pretraining(
    folder: Path, bank: FeatureBank, per_class: Mapping[str, float], sets: Sequence[str]
) -> dict[str, Any] | None:
    """The classes of a bank that the training sets of its encoders had, and the mean accuracies of both kinds of class.

    per_class: the accuracy of each class. sets: the training sets (see ``training_sets``). None where no list of
    classes is known for the bank's encoders, and where clips have several labels.
    """
    if bank.multi or not per_class or not sets:
        return None
    found = {o.class_name: o for o in reversed(_overlaps(folder, bank, sets)) if o.class_name in per_class}
    seen = [accuracy for name, accuracy in per_class.items() if name in found]
    unseen = [accuracy for name, accuracy in per_class.items() if name not in found]
    return {
        "training_sets": list(sets),
        "overlapping": {name: f"{o.label} ({o.training_set}, {o.how})" for name, o in sorted(found.items())},
        "classes_overlapping": len(seen),
        "classes_unseen": len(unseen),
        "accuracy_overlapping": sum(seen) / len(seen) if seen else None,
        "accuracy_unseen": sum(unseen) / len(unseen) if unseen else None,
    }


def _overlaps(folder: Path, bank: FeatureBank, sets: Sequence[str]) -> list[Overlap]:
    """The overlaps by words, and by confidence where the data set has streams of scores."""
    if any(s.modality == SCORE and s.encoder in SCORES for s in list_streams(folder)):
        return overlaps(folder, Catalog.read(folder), bank.streams.values(), bank.label_set)
    told = (by_words(name, training_set) for name in bank.class_names for training_set in sets)
    return [overlap for overlap in told if overlap is not None]
