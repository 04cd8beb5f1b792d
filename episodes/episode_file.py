"""A file of episodes: which clips, and which steps of them, are the supports and queries of every episode.

Published benchmarks store the episodes that their figures were measured on. Replayed, they are the same for every
method, whatever draws episodes elsewhere.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..machine.files import refuse_special, whole_or_absent
from . import counter

_ARRAYS = ("clips", "support", "query", "query_label")
_STEPS = ("support_steps", "query_steps")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class EpisodeFile:
    """E episodes of N ways, K shots and Q queries, as many of each class.

    clips: the M ids of the clips. support: int64 [E, N, K] and query: int64 [E, Q], places in ``clips``.
    query_label: int64 [E, Q] in 0..N-1. support_steps, query_steps: int64 [E, N, K, S] and [E, Q, S], the steps that
    are taken of each clip's sequence, or None where clips are taken whole. digest: the SHA-256 of the file that was
    read.
    """

    clips: Sequence[str]
    support: np.ndarray
    query: np.ndarray
    query_label: np.ndarray
    support_steps: np.ndarray | None = None
    query_steps: np.ndarray | None = None
    digest: str = ""

    def __len__(self) -> int:
        return len(self.support)

    @property
    def ways(self) -> int:
        return int(self.support.shape[1])

    @property
    def shots(self) -> int:
        return int(self.support.shape[2])

    @property
    def queries_a_class(self) -> int:
        return int(self.query.shape[1]) // self.ways

    @property
    def steps(self) -> int | None:
        """The number S of steps that are taken of a clip; None where clips are taken whole."""
        return None if self.query_steps is None else int(self.query_steps.shape[-1])

    @cached_property
    def order(self) -> np.ndarray:
        """The order int64 [E, Q] in which an episode's queries are given: at random, where files have them by class."""
        words = counter.words(counter.key(0, "replay"), np.arange(len(self)), self.query.shape[1])
        return np.argsort(words, axis=1, kind="stable")

    def write(self, path: Path) -> None:
        """Write an npz file, whole or not at all."""
        arrays = {name: getattr(self, name) for name in (*_ARRAYS, *_STEPS)}
        arrays["clips"] = np.array(self.clips)
        held: dict[str, Any] = {
            name: np.asarray(array) for name, array in arrays.items() if array is not None
        }
        with whole_or_absent(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **held)

    @classmethod
    def read(cls, path: Path) -> EpisodeFile:
        """The episodes of an npz file. Raises UsageError where it cannot be read or its arrays do not fit together."""
        if path.is_dir():
            raise UsageError(
                f"{str(path)!r} is a folder; `fsmm episodes import` makes a file of such a folder."
            )
        refuse_special(path, "file of episodes")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name]) for name in file.files}
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except _UNREADABLE as error:
            raise UsageError(f"The file of episodes {str(path)!r} cannot be read ({error}).") from None
        if fault := _fault(arrays):
            raise UsageError(f"The file of episodes {str(path)!r} is not of the right form: {fault}.")
        return cls(
            clips=arrays["clips"].tolist(),
            support=arrays["support"].astype(np.int64),
            query=arrays["query"].astype(np.int64),
            query_label=arrays["query_label"].astype(np.int64),
            support_steps=_whole(arrays.get("support_steps")),
            query_steps=_whole(arrays.get("query_steps")),
            digest=digest,
        )


def _whole(array: np.ndarray | None) -> np.ndarray | None:
    return None if array is None else array.astype(np.int64)


def _fault(arrays: Mapping[str, np.ndarray]) -> str:
    """The clause that says what is wrong with the arrays of a file; "" where nothing is."""
    if absent := [name for name in _ARRAYS if name not in arrays]:
        return f"it lacks the array {absent[0]!r}"
    clips, support, query, label = (arrays[name] for name in _ARRAYS)
    if clips.ndim != 1 or clips.dtype.kind != "U" or len(set(clips.tolist())) != len(clips):
        return "'clips' must hold the ids of clips, each once"
    if any(array.dtype.kind not in "iu" for array in (support, query, label)):
        return "its episodes must hold whole numbers"
    if support.ndim != 3 or query.ndim != 2 or query.shape != label.shape or len(query) != len(support):
        return "'support' must be [E, N, K], 'query' and 'query_label' [E, Q]"
    if not support.size or not query.size:
        return "it holds no episode"
    if min(support.min(), query.min()) < 0 or max(support.max(), query.max()) >= len(clips):
        return "an episode names a clip that 'clips' does not have"
    return _fault_of_labels(label, support.shape[1]) or _fault_of_steps(arrays)


def _fault_of_labels(label: np.ndarray, ways: int) -> str:
    if label.min() < 0 or label.max() >= ways:
        return f"the labels of queries must lie in 0..{ways - 1}"
    counts = (label[..., None] == np.arange(ways)).sum(1)
    return "" if (counts == counts[0, 0]).all() else "every class needs as many queries as any other"


def _fault_of_steps(arrays: Mapping[str, np.ndarray]) -> str:
    held = [arrays[name] for name in _STEPS if name in arrays]
    if not held:
        return ""
    shapes = [(*arrays[name].shape, held[0].shape[-1]) for name in ("support", "query")]
    if len(held) < 2 or [array.shape for array in held] != shapes or not held[0].shape[-1]:
        return "'support_steps' and 'query_steps' must be [E, N, K, S] and [E, Q, S]"
    if any(array.dtype.kind not in "iu" or array.min() < 0 for array in held):
        return "steps are whole numbers from 0"
    return ""
