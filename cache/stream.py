"""A stream as a whole: which clips it holds, and the writer that adds shards to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import CacheError
from .schema import Provenance, StreamName, shard_paths, stream_folder
from .shard import Shard, build_shard, read_shard, storable, write_shard

try:
    import fcntl
except ImportError:  # no file locks on this platform: one writer a stream is then the caller's care
    fcntl = None  # type: ignore[assignment]


def stream_provenance(dataset_folder: Path, stream: StreamName) -> Provenance | None:
    """The provenance that all shards of a stream share; None while it has none. Raises CacheError on a mixture."""
    found: tuple[Path, Provenance] | None = None
    for path in shard_paths(dataset_folder, stream):
        provenance = read_shard(path, features=False).provenance
        if found is None:
            found = path, provenance
        elif differ := found[1].differences(provenance):
            raise CacheError(
                f"Stream {stream} mixes features of different origin: {found[0].name} and {path.name} differ "
                f"({'; '.join(differ)}); delete one of them and extract again."
            )
    return found[1] if found else None


def stream_keys(dataset_folder: Path, stream: StreamName) -> dict[str, bool]:
    """From key to presence, for every row the stream holds."""
    held: dict[str, bool] = {}
    for path in shard_paths(dataset_folder, stream):
        shard = read_shard(path, features=False)
        held.update(zip(shard.key, shard.present.tolist()))
    return held


class StreamWriter:
    """Adds clips to one stream, a shard at a time; what is flushed is safe, what is open is lost on a kill.

    One writer a stream at a time (an advisory lock, released by the system if the process dies).
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
        self.dataset = dataset_folder.name
        self.provenance = provenance
        self.max_clips, self.max_bytes = max_clips, max_bytes
        self.folder = stream_folder(dataset_folder, self.stream)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder / ".lock", self.stream)
        try:
            existing = stream_provenance(dataset_folder, self.stream)
            if existing and (differ := existing.differences(provenance)):
                raise CacheError(
                    f"Stream {self.stream} was made differently: {'; '.join(differ)} (there = this run); use another "
                    "cache, the same settings as before, or delete the stream's folder to rebuild it."
                )
            for leftover in self.folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
            shards = shard_paths(dataset_folder, self.stream)
        except BaseException:
            os.close(self._lock)
            raise
        self._next = int(shards[-1].stem) + 1 if shards else 0
        self._rows: list[tuple[str, np.ndarray | None, Mapping[str, object]]] = []
        self._bytes = 0
        self.log: dict[str, object] = {}

    def add(self, key: str, features: np.ndarray | None, facts: Mapping[str, object] | None = None) -> bool:
        """Add one row; None records the modality as absent. True when this completed a shard.

        Raises CacheError for features that cannot be stored; the row is then not added.
        """
        kept = None if features is None else storable(key, features, self.provenance)
        self._rows.append((key, kept, facts or {}))
        self._bytes += 0 if kept is None else kept.nbytes
        if len(self._rows) >= self.max_clips or self._bytes >= self.max_bytes:
            self.flush()
            return True
        return False

    def add_shard(self, shard: Shard) -> None:
        """Write a ready shard (from a merge or an import) as it stands, after the open one."""
        self.flush()
        write_shard(self.folder / f"{self._next:05d}.h5", shard)
        self._next += 1

    def flush(self) -> None:
        """Make the open rows a shard."""
        if self._rows:
            shard = build_shard(self.dataset, self.provenance, self._rows, self.log)
            write_shard(self.folder / f"{self._next:05d}.h5", shard)
            self._next += 1
            self._rows, self._bytes = [], 0

    def close(self) -> None:
        """Flush and release the stream."""
        try:
            self.flush()
        finally:
            os.close(self._lock)

    def __enter__(self) -> StreamWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _lock(path: Path, stream: StreamName) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise CacheError(
                f"Another process is writing stream {stream}; wait for it, or use another --cache."
            ) from None
    return handle
