"""Where the features of a shard lie in its file, and their memory maps, of which few are open at a time."""

from __future__ import annotations

import mmap
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..errors import CacheError

REMEDY = "run `fsmm cache verify --repair`, then extract again: only what is missing is rebuilt."
_OPEN = (
    128  # Each map holds a file open, and systems allow a process a thousand, fewer where it needs others.
)


def damaged_shard(path: Path, reason: str | BaseException) -> CacheError:
    """The error to raise for a shard that is damaged."""
    if isinstance(reason, BaseException):
        reason = str(reason).split("\n")[0][:200] or type(reason).__name__
    return CacheError(f"Shard {str(path)!r} is damaged ({reason}); {REMEDY}")


@dataclass(frozen=True)
class FeatureBlock:
    """The bytes of a shard's file at which its features [sum of T, D] lie."""

    path: Path
    """The shard."""
    begin: int
    """The byte of the file at which the features begin."""
    rows: int
    """The number of rows, sum of T."""
    dim: int
    """The width D."""
    dtype: np.dtype[Any]
    """The type of the features."""

    def map(self) -> np.ndarray:
        """The features [sum of T, D] as a read-only memory map. Raises CacheError where the file has no such bytes."""
        if not self.rows * self.dim:
            return np.zeros((self.rows, self.dim), self.dtype)
        try:
            # numpy's own memory maps take ten times as long to make, and their slices five times as long.
            with open(self.path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            flat = np.frombuffer(mapped, self.dtype, self.rows * self.dim, self.begin)
        except (OSError, ValueError) as error:
            raise damaged_shard(self.path, error) from None
        return flat.reshape(self.rows, self.dim)


class FeatureMaps(Sequence[np.ndarray]):
    """The memory maps of many shards by number; a shard's file is opened when its map is asked for."""

    def __init__(self, blocks: Sequence[FeatureBlock]) -> None:
        self._blocks = blocks
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    @overload
    def __getitem__(self, number: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, number: slice) -> list[np.ndarray]: ...
    def __getitem__(self, number: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        found = self._open.pop(number, None)
        if found is None:
            found = self._blocks[number].map()
        self._open[number] = found
        if len(self._open) > _OPEN:
            self._open.popitem(last=False)
        return found
