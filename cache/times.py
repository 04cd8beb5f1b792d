"""The times of a stream's steps: the second of the middle of each, counted from the beginning of the clip.

They lie beside the features of a shard and are no part of its rows' checksums, so that readers that know nothing of
them read the shard as before. A stream may lack them: features from elsewhere, or of an older release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import h5py
import numpy as np

from ..errors import CacheError
from .hdf5 import stored_values


def storable_times(key: str, times: np.ndarray, steps: int) -> np.ndarray:
    """The times of a row as they will be stored, float32 [T].

    Raises CacheError unless there is one finite time for each step and none is before the last.
    """
    found = np.asarray(times, np.float32)
    if found.shape != (steps,) or not np.isfinite(found).all() or (np.diff(found) < 0).any():
        raise CacheError(
            f"The times of {key!r} have shape {list(found.shape)}; a clip of {steps} steps has so many, all finite, "
            "none before the one that it follows."
        )
    return found


def joined_times(times: Sequence[np.ndarray | None], steps: Sequence[int]) -> np.ndarray | None:
    """The times of rows with these numbers of steps, one after another, NaN where unknown; None where none is known."""
    if all(found is None for found in times):
        return None
    unknown = (np.full(count, np.nan, np.float32) for count in steps)
    parts = [gap if found is None else found for found, gap in zip(times, unknown, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def times_check(times: np.ndarray) -> np.uint64:
    """The checksum of a shard's times: BLAKE2b-64 of their bytes."""
    digest = hashlib.blake2b(np.ascontiguousarray(times, np.float32).data, digest_size=8)
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def right_times(file: h5py.File) -> np.ndarray | None:
    """The times that an open shard has, float32 [sum of T]; None where it has none.

    Raises KeyError and ValueError where they cannot be read, or are not the ones that were written.
    """
    if "times" not in file:
        return None
    times = stored_values(file, "times")
    if times.dtype != np.float32 or times_check(times) != file.attrs["times_check"]:
        raise ValueError("its times are not the ones that were written")
    return times


def refuse_times(times: np.ndarray, steps: int) -> str:
    """A phrase about the times of a shard with so many steps in all; "" where they fit."""
    return "" if times.shape == (steps,) else "its times do not match its features"


def evened(times: np.ndarray | None, steps: int) -> np.ndarray | None:
    """The times of a clip's ``steps`` features that an encoder made of an input with these times [m].

    An encoder that makes fewer steps than it is given covers an equal part of them with each: its time is their mean.
    Times of an input that is shorter than the output are not known, nor those of a clock that does not ascend.

    >>> evened(np.array([0.5, 1.5, 2.5, 3.5]), 2).tolist()
    [1.0, 3.0]
    """
    if times is None or not 0 < steps <= len(times):
        return None
    found = np.array([part.mean() for part in np.array_split(np.asarray(times, np.float64), steps)])
    return found if np.isfinite(found).all() and (np.diff(found) >= 0).all() else None


def lacking_times(stream: object, clips: Sequence[str]) -> CacheError:
    """The error to raise where steps of ``stream`` must be aligned whose times are not known."""
    more = f" and {len(clips) - 1:,} more" if len(clips) > 1 else ""
    return CacheError(
        f"Stream {stream} does not know the times of its steps (clip {clips[0]!r}{more}), so that it cannot be "
        f"aligned; remove it by `fsmm cache rm --stream {stream}` and extract it again, import it with 'times', or "
        "leave out --align."
    )
