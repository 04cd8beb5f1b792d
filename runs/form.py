"""The form of a run's files, by which one that was edited, or that another program made, is told from ours.

What is not there is fine, since older releases wrote less, and so is what this release does not know. A value of
another kind than fsmm writes there is not: a listing, a comparison or a report would stumble over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, FiniteFloat

from ..machine.forms import Stored

Whole = int | None
Number = FiniteFloat | None


class _Choice(Stored):
    what: str
    on: str


class _Training(Stored):
    curve: list[dict[str, Number]] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)


class _Alone(Stored):
    accuracy: FiniteFloat
    certainty: FiniteFloat
    negative_entropy: FiniteFloat


class _Reliability(Stored):
    modalities: dict[str, _Alone]
    right_where_other_is_wrong: dict[str, dict[str, Number]]


class _ClassRow(Stored):
    name: str
    accuracy: dict[str, FiniteFloat]
    loss: dict[str, FiniteFloat]
    interval: dict[str, Number]
    needs_order: bool


class _OrderCertificate(Stored):
    episodes: int
    rows: list[_ClassRow] = Field(min_length=1)


class _Pretraining(Stored):
    training_sets: list[str]
    overlapping: dict[str, Any]
    classes_overlapping: int
    classes_unseen: int
    accuracy_overlapping: Number = None
    accuracy_unseen: Number = None


class _Lost(Stored):
    modality: str
    side: str = "both"


class _Protocol(Stored):
    class_split: str | None = None
    clip_split: str | None = None
    label_set: str | None = None
    missing: list[_Lost] = Field(default_factory=list)
    noisy: list[_Lost] = Field(default_factory=list)
    query_groups: list[str] | None = None
    query_modalities: list[str] | None = None
    seed: int = 0
    split: str | None = None
    support_groups: list[str] | None = None
    support_modalities: list[str] | None = None


class Configuration(Stored):
    """What config.json holds of what is read again; the numbers of the protocol are checked by its own reader."""

    method: str
    dataset: str
    protocol: _Protocol
    cache: str | None = None
    clip_ids: str | None = None
    clip_files: str | None = None
    fingerprint: str | None = None
    fusion: str | None = None
    modalities: list[str] | None = None
    normalise: str | None = None
    settings: dict[str, str] = Field(default_factory=dict)
    streams: list[str] | None = None
    train_dataset: str | None = None
    train_modalities: list[str] | None = None
    train_seed: int | None = None
    when_missing: str | None = None
    words: str | None = None


class Figures(Stored):
    """What metrics.json holds of what is read again."""

    accuracy: FiniteFloat
    choices: list[_Choice] | None = None
    chosen: dict[str, Any] | None = None
    ci95: Number = None
    ci95_classes: Number = None
    ci95_clips: Number = None
    classes: Whole = None
    clips: Whole = None
    device: str | None = None
    effective_classes: dict[str, Number] | None = None
    episodes: int | None = Field(default=None, ge=0)
    eval_seconds: Number = None
    excluded_classes: list[str] | None = None
    fingerprint: str | None = None
    measure: str | None = None
    notes: list[str] | None = None
    order_certificate: _OrderCertificate | None = None
    parameters: Number = None
    peak_memory_mb: Number = None
    per_class: dict[str, Number] | None = None
    pretraining: _Pretraining | None = None
    reliability: _Reliability | None = None
    streams: dict[str, str] | None = None
    train_seconds: Number = None
    training: _Training | None = None
    training_stopped: str | None = None
    words: str | None = None


_ARRAYS = {
    "accuracy": (1, "fiu"),
    "class_names": (1, "U"),
    "clip_class": (1, "iu"),
    "clip_row": (1, "iu"),
    "confusion": (2, "fiu"),
    "draws_check": (0, "U"),
    "draws_version": (0, "iu"),
    "right_bits": (2, "u"),
    "transductive": (0, "b"),
}
"""The number of axes and the kinds of numpy's types of each array that is read again."""


def arrays_fault(arrays: Mapping[str, np.ndarray]) -> str:
    """Why the arrays of episodes.npz are not as fsmm writes them, in a few words; empty where they are.

    >>> arrays_fault({"accuracy": np.zeros(3), "right_bits": np.zeros((2, 1), np.uint8)})
    'right_bits has 2 entries and accuracy 3'
    """
    for name, (axes, kinds) in _ARRAYS.items():
        found = arrays.get(name)
        if found is not None and (found.ndim != axes or found.dtype.kind not in kinds):
            return f"{name} has {found.ndim} axes of type {found.dtype}"
    if "right_bits" in arrays and arrays["right_bits"].dtype != np.uint8:
        return f"right_bits is of type {arrays['right_bits'].dtype}"
    pairs = (("right_bits", "accuracy"), ("clip_row", "clip_class"), ("confusion", "class_names"))
    for one, other in pairs:
        if one in arrays and other in arrays and len(arrays[one]) != len(arrays[other]):
            return f"{one} has {len(arrays[one])} entries and {other} {len(arrays[other])}"
    return ""
