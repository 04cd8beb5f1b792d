"""An array that holds the steps of all clips one after another, with the number of steps of each clip beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from ...errors import CacheError
from .columns import Column


class ConcatenatedColumn(Column):
    """The clips [T, ...] of an array [sum of T, ...]; a clip without any step is None.

    lengths: int64 [n], the number of steps of each clip. Raises CacheError where they do not add up to its rows.
    """

    def __init__(self, column: Column, lengths: np.ndarray) -> None:
        super().__init__(column.name)
        if column.rows != int(lengths.sum()):
            raise CacheError(
                f"Array {column.name!r} has {column.rows or 0:,} rows where the lengths of {len(lengths):,} clips add "
                f"up to {int(lengths.sum()):,}."
            )
        self._column, self._lengths, self.rows = column, lengths, len(lengths)

    def _values(self) -> np.ndarray:
        raise ValueError("its clips differ in length where one array is needed")

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        steps = self._column.clips(ids)
        for length in self._lengths.tolist():
            yield np.stack([np.asarray(step) for step in islice(steps, length)]) if length else None
