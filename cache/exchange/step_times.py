"""The times of steps in an array beside the features: a row a clip, with as many seconds as it has steps, or more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import compress

import numpy as np

from ...errors import CacheError
from .columns import Column


def times_of_clips(column: Column, chosen: np.ndarray, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
    """The seconds [T or more] of the steps of each clip that is imported; None where they are not known.

    chosen: bool [n], the rows of the source that are imported. ids: the clip ids of these rows.
    Raises CacheError for an array of another number of rows, or of no numbers.
    """
    if column.rows is not None and column.rows != len(chosen):
        raise CacheError(
            f"Array {column.name!r} has {column.rows:,} rows where the clips are {len(chosen):,}."
        )
    found = column.clips(ids)
    for x in found if column.rows is None else compress(found, chosen.tolist()):
        if x is not None and np.asarray(x).dtype.kind not in "iuf":
            raise CacheError(f"Array {column.name!r} holds no numbers; it must give seconds.")
        yield None if x is None else np.asarray(x, np.float64).reshape(-1)


def cut_times(times: np.ndarray | None, features: np.ndarray | None) -> np.ndarray | None:
    """The times of the steps that a clip has; None where it has no step, or all of them are NaN.

    >>> cut_times(np.array([0.5, 1.5, np.nan]), np.zeros((2, 4))).tolist()
    [0.5, 1.5]
    """
    if times is None or features is None or np.isnan(times[: len(features)]).all():
        return None
    return times[: len(features)]
