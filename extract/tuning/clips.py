"""The clips that a tuning may read, cut out of a data set's listing before any file is opened.

Neither a clip of a val or novel class, nor one of the data set's own val or test clips, nor any file in which such a
clip lies, is among them; and nothing of the withheld classes, not even their names, goes further than this file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ...cache.catalog import LabelSet
from ...cache.schema import BASE
from ...errors import UsageError
from ...machine.json_text import json_text
from ..clip_files import files_of
from ..datasets.base import Listing, Source
from .request import Clips

_WITHHELD_SPLITS = ("val", "test")  # The data set's own splits of clips that are for evaluation.


@dataclass(frozen=True, kw_only=True)
class TuningClips:
    """The clips of a tuning, in the order of the data set."""

    dataset: str
    """The name of the data set."""
    label_set: str
    """The label set whose base classes these are."""
    sources: Mapping[str, Source]
    """The files of each clip, by clip id."""
    label: np.ndarray | None
    """The base class of each clip, int64 [n], or multi-hot float32 [n, C]; None where labels are not read."""
    classes: tuple[str, ...] = ()
    """The names of the C base classes; none where labels are not read."""

    def digest(self) -> str:
        """The SHA-256 of the clips' ids and labels, in hexadecimal."""
        labels = [] if self.label is None else self.label.tolist()
        return hashlib.sha256(
            json_text([list(self.sources), list(self.classes), labels]).encode()
        ).hexdigest()


def tuning_clips(listing: Listing, *, use: Clips, labelled: bool) -> TuningClips:
    """The clips of a listing that a tuning may read.

    use: which clips are wanted. labelled: whether their labels are read. Raises UsageError where there are none, and
    where the data set has no base classes that are needed.
    """
    catalog = listing.catalog
    labels = catalog.labels()
    wanted = ("base" if labelled else "unlabelled") if use == "auto" else use
    rows = _rows(listing, labels, wanted)
    if not len(rows):
        raise UsageError(_none_found(listing, labels, wanted))
    ids = [catalog.clip_id[row] for row in rows]
    base = labels.class_split(BASE)
    return TuningClips(
        dataset=catalog.dataset,
        label_set=catalog.default_label_set,
        sources={clip: listing.sources[clip] for clip in ids},
        label=_base_labels(labels, base, rows) if labelled else None,
        classes=tuple(labels.class_names[i] for i in base) if labelled else (),
    )


def _rows(listing: Listing, labels: LabelSet, wanted: str) -> np.ndarray:
    """The rows of the wanted clips, in ascending order, without those that share a file with a withheld one."""
    catalog = listing.catalog
    hot = _hot(labels)
    base = labels.class_split(BASE)
    has_label, in_base = hot.any(1), hot[:, base].any(1)
    elsewhere = np.delete(hot, base, 1).any(1)
    for_evaluation = np.array([split in _WITHHELD_SPLITS for split in catalog.clip_split], bool)
    withheld = elsewhere | for_evaluation
    kinds = {"base": in_base, "unlabelled": ~has_label, "both": in_base | ~has_label}
    closed = {
        os.path.realpath(file)
        for row in np.flatnonzero(withheld)
        for file in files_of(listing.sources.get(catalog.clip_id[row], Source()))
    }
    free = [
        row
        for row in np.flatnonzero(kinds[wanted] & ~withheld)
        if (source := listing.sources.get(catalog.clip_id[row])) is not None
        and not any(os.path.realpath(file) in closed for file in files_of(source))
    ]
    return np.array(free, np.int64)


def _hot(labels: LabelSet) -> np.ndarray:
    """Whether each clip has each class, bool [n, C]."""
    if labels.multi:
        return np.asarray(labels.label, bool)
    return labels.label[:, None] == np.arange(len(labels.class_names))


def _base_labels(labels: LabelSet, base: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The labels of clips over the base classes alone."""
    hot = _hot(labels)[rows][:, base]
    return hot.astype(np.float32) if labels.multi else hot.argmax(1).astype(np.int64)


def _none_found(listing: Listing, labels: LabelSet, wanted: str) -> str:
    name = listing.catalog.dataset
    if wanted == "unlabelled":
        return (
            f"Data set {name!r} has no clip without a label; name a folder of such clips by --unlabelled, or take the "
            "clips of base classes, without their labels, by --use base."
        )
    if not len(labels.class_split(BASE)):
        return f"Data set {name!r} has no base classes; give a class split that has some by --class-split."
    return (
        f"No clip of data set {name!r} may be read: every clip of a base class is for evaluation too, or lies in one "
        "file with such a clip; give another class split, or clips without labels by --unlabelled."
    )
