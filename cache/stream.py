"""Operations on a whole stream: listing the clips that it holds, and the writer that adds shards to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import CacheError
from ..machine.files import sync_names
from .catalog import check_key
from .index import StreamIndex, renew_index, stream_index
from .locking import try_lock
from .schema import Provenance, StreamName, stream_folder
from .shard import Shard, build_shard, storable, write_shard
from .times import storable_times


def stream_provenance(dataset_folder: Path, stream: StreamName) -> Provenance | None:
    """The provenance that all shards of a stream share, or None while the stream has no shard.

    Raises CacheError where shards differ in their provenance.
    """
    return origin_of(stream_index(dataset_folder, stream), stream)


def origin_of(index: StreamIndex, stream: StreamName) -> Provenance | None:
    """The provenance that all shards of a stream's index share, or None where there is no shard.

    Raises CacheError where shards differ in their provenance.
    """
    if mixture := index.mixture():
        path, differ = mixture
        raise CacheError(
            f"Stream {stream} mixes features of different origin: {index.paths[0].name} and {path.name} differ "
            f"({'; '.join(differ)}); delete one of them and extract again."
        )
    return index.origins[0] if index.origins else None


def stream_keys(dataset_folder: Path, stream: StreamName) -> dict[str, bool]:
    """Whether each row of a stream is present, by key."""
    return keys_present(stream_index(dataset_folder, stream))


def keys_present(index: StreamIndex) -> dict[str, bool]:
    """Whether each row of a stream's index is present, by key; a key held twice counts as in load_table."""
    held = dict(zip(index.key, index.present.tolist()))
    if len(held) < len(index.key):
        for key, present in zip(index.key, index.present.tolist()):
            held[key] = held[key] or present
    return held


def stream_checks(dataset_folder: Path, stream: StreamName) -> dict[str, int]:
    """The checksum (see shard.clip_check) of each row of a stream, by key; equal checksums mean equal features."""
    index = stream_index(dataset_folder, stream)
    return dict(zip(index.key, index.check.tolist()))


class StreamWriter:
    """A writer that adds clips to one stream, a shard at a time.

    Flushed shards are safe; the rows of the open shard are lost if the process is killed. A stream has one writer at
    a time (an advisory lock, which the system releases if the process dies).
    Raises CacheError when another process writes, or when the stream holds features of another provenance.
    """

    def __init__(
        self,
        dataset_folder: Path,
        provenance: Provenance,
        max_clips: int = 256,
        max_bytes: int = 64 << 20,
    ) -> None:
        self.stream = StreamName(provenance.modality, provenance.encoder)
        self.dataset_folder, self.dataset = dataset_folder, dataset_folder.name
        self.provenance = provenance
        self.max_clips, self.max_bytes = max_clips, max_bytes
        self.folder = stream_folder(dataset_folder, self.stream)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock_stream(self.folder, self.stream)
        try:
            index = stream_index(dataset_folder, self.stream)
            existing = origin_of(index, self.stream)
            if existing and (differ := existing.differences(provenance)):
                raise CacheError(
                    f"Stream {self.stream} was made differently: {'; '.join(differ)} (there = this run); use another "
                    "cache, the same settings as before, or delete the stream's folder to rebuild it."
                )
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            self._held = set(index.key)
        except BaseException:
            os.close(self._lock)
            raise
        self._first = self._next = int(index.paths[-1].stem) + 1 if index.paths else 0
        self._rows: list[tuple[str, np.ndarray | None, Mapping[str, object]]] = []
        self._times: list[np.ndarray | None] = []
        self._bytes = 0
        self.log: dict[str, object] = {}

    @property
    def is_new(self) -> bool:
        """Whether the stream has no row yet, neither in a shard nor open."""
        return not self._held

    def add(
        self,
        key: str,
        features: np.ndarray | None,
        facts: Mapping[str, object] | None = None,
        times: np.ndarray | None = None,
    ) -> bool:
        """Add one row, and return whether it completed a shard. ``features`` None records the modality as absent.

        ``features`` is copied. times: the seconds [T] of the steps' middles, None where they are not known.
        Raises CacheError for features or times that cannot be stored and for a key that the stream already holds; the
        row is then not added.
        """
        if check_key(key) in self._held:
            raise CacheError(f"Clip {key!r} is already in stream {self.stream}; a stream holds a clip once.")
        stored = None
        if features is not None:
            stored = storable(key, features, self.provenance)
            if np.may_share_memory(stored, features):  # The caller may use its buffer again before the flush.
                stored = stored.copy()
        known = None if times is None or stored is None else storable_times(key, times, len(stored))
        self._held.add(key)
        self._rows.append((key, stored, facts or {}))
        self._times.append(known)
        self._bytes += 0 if stored is None else stored.nbytes
        if len(self._rows) >= self.max_clips or self._bytes >= self.max_bytes:
            self.flush()
            return True
        return False

    def add_shard(self, shard: Shard) -> None:
        """Flush the open rows, then write a finished shard (from a merge) unchanged.

        Raises CacheError for another provenance, or a clip that the stream already holds.
        """
        if differ := self.provenance.differences(shard.provenance):
            raise CacheError(f"A shard for stream {self.stream} was made differently: {'; '.join(differ)}.")
        if twice := self._held.intersection(shard.key):
            raise CacheError(
                f"Clip {min(twice)!r} is already in stream {self.stream}; a stream holds a clip once."
            )
        self.flush()
        write_shard(self.folder / f"{self._next:05d}.h5", shard)
        self._held.update(shard.key)
        self._next += 1

    def flush(self) -> None:
        """Write the open rows as a shard."""
        if self._rows:
            shard = build_shard(self.dataset, self.provenance, self._rows, self.log, self._times)
            write_shard(self.folder / f"{self._next:05d}.h5", shard)
            self._next += 1
            self._rows, self._times, self._bytes = [], [], 0

    def close(self) -> None:
        """Flush the open rows, note where all rows lie, and release the stream's lock."""
        try:
            self.flush()
            if self._next > self._first:
                # Neither can lose a row: names last a moment later without, and what is wrong with a shard shows later.
                with suppress(OSError, CacheError):
                    sync_names(self.folder)
                    renew_index(self.dataset_folder, self.stream)
        finally:
            os.close(self._lock)

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_stream(folder: Path, stream: StreamName) -> int:
    """Take the stream's advisory lock; closing the returned handle releases it, as does the end of the process.

    Where the platform has no such locks, the caller must see to it that a stream has a single writer.
    Raises CacheError where another process holds the lock.
    """
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    if not try_lock(handle):
        os.close(handle)
        raise CacheError(f"Another process is writing stream {stream}; wait for it, or use another --cache.")
    return handle
