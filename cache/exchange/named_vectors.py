"""Class-word vectors that are named by texts, such as a dict from the readable name of a class to its vector.

They are matched to classes by these names and never by their places: published files are sorted by readable names where
classes are sorted by others, so that places give many classes the vector of another one.
"""

from __future__ import annotations

import numpy as np

from ...errors import CacheError, UsageError
from ...machine.texts import composed
from ..catalog import Catalog
from .columns import Column
from .mapping import WordSpec


def vectors_by_text(
    spec: WordSpec, column: Column, catalog: Catalog
) -> tuple[list[tuple[str, np.ndarray]], list[str]]:
    """The vector [1, E] of each class as (key, vector) rows, and a clause for each class without one.

    A text differs from the name of its vector in upper and lower case at most. Raises UsageError for an array that does
    not have one vector a text, CacheError where no class has a vector or they are no finite numbers of one length.
    """
    if column.rows is not None:
        raise UsageError(
            f"Array {spec.vectors!r} has rows; with 'by', it has one vector for each text, as a dict does: 'SOURCE:*'."
        )
    names = column.ids()
    vectors = {_plain(name): x for name, x in zip(names, column.clips(names)) if x is not None}
    rows: list[tuple[str, np.ndarray]] = []
    without: list[str] = []
    for label_set, labels in catalog.label_sets.items():
        texts = labels.words if spec.by == "words" else labels.class_names
        for class_name, text in zip(labels.class_names, texts):
            if (found := vectors.get(_plain(text))) is None:
                without.append(
                    f"Class {class_name!r} ({text!r}) has no vector in {spec.vectors!r}; give it one"
                )
            else:
                rows.append((f"{label_set}/{class_name}", np.asarray(found).reshape(1, -1)))
    if not rows:
        raise CacheError(
            f"No class has a vector in {spec.vectors!r}, whose first text is {next(iter(names), '')!r}."
        )
    sizes = {x.shape[1] for _, x in rows}
    if len(sizes) > 1 or any(x.dtype.kind not in "biuf" or not np.isfinite(x).all() for _, x in rows):
        raise CacheError(
            f"Array {spec.vectors!r} must hold finite numbers, one vector of the same length a text."
        )
    return rows, without


def _plain(text: str) -> str:
    return " ".join(composed(text).casefold().split())
