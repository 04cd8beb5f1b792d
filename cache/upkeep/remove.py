"""`fsmm cache rm` removes a data set, streams, clips or runs; each of them is there as a whole, or gone.

What is removed is renamed out of the data set first and deleted then, so that an interruption leaves nothing half
removed. Clips leave the catalog first: a row that a shard still has of them counts for nothing.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import CacheError, UsageError, listed, unknown
from ..catalog import Catalog
from ..locking import CATALOG, locked, refuse_older, update_catalog
from ..rewrite import rewrite_stream
from ..schema import StreamName, check_name, dataset_folder, list_streams, shard_paths, stream_folder
from ..shard import read_shard
from ..stream import lock_stream
from ..thumbnails import forget_thumbnails
from .forget import forget_failures

_LEFT_ALONE = 600.0  # seconds, after which what another removal left behind is deleted.


@dataclass(frozen=True, kw_only=True)
class Removal:
    """A removal that is planned and not yet carried out."""

    folder: Path
    """The folder of the data set."""
    what: str
    """What is removed, in words."""
    bytes: int
    """The bytes that will be free, or about as many where clips are removed."""
    act: Callable[[], None] = field(repr=False)
    """The removal itself."""

    def carry_out(self) -> int:
        """Remove it, and return the number of bytes that are free now.

        Raises CacheError, and removes nothing, where another process writes the data set.
        """
        before = _size(self.folder)
        self.act()
        return before - _size(self.folder)


def plan_dataset(cache: Path, dataset: str) -> Removal:
    """The removal of a whole data set with its runs, be it damaged or not. Raises CacheError where there is none."""
    folder = cache / check_name("Dataset", dataset)
    if not any((folder / name).exists() for name in ("catalog.h5", "streams", "runs")):
        folder = dataset_folder(cache, dataset)  # It raises the error that names the data sets there are.
    _refuse_link(folder)

    def act() -> None:
        with locked(folder, CATALOG), _alone(folder, list_streams(folder)):
            _discard(cache, [folder])

    runs = _count_runs(folder)
    what = f"data set {dataset} with {len(list_streams(folder))} streams and {runs} runs"
    return Removal(folder=folder, what=what, bytes=_size(folder), act=act)


def plan_streams(cache: Path, dataset: str | None, names: Sequence[str]) -> Removal:
    """The removal of streams.

    Raises UsageError for a stream that the data set does not have, CacheError for a data set of an older schema.
    """
    folder = dataset_folder(cache, dataset)
    refuse_older(folder, Catalog.read(folder))
    held = {str(stream): stream for stream in list_streams(folder)}
    for name in names:
        if name not in held:
            raise unknown("stream", name, held)
    chosen = [held[name] for name in dict.fromkeys(names)]
    places = [stream_folder(folder, stream) for stream in chosen]
    for place in places:
        _refuse_link(place)

    def act() -> None:
        with _alone(folder, chosen):
            _discard(cache, places)
        for place in places:
            with suppress(OSError):  # The modality has other streams.
                place.parent.rmdir()
        forget_failures(folder, lambda entry: entry.get("stream") in names)

    what = f"stream{'s' if len(chosen) > 1 else ''} {listed([str(stream) for stream in chosen])}"
    return Removal(folder=folder, what=what, bytes=sum(map(_size, places)), act=act)


def plan_clips(cache: Path, dataset: str | None, ids: Sequence[str]) -> Removal:
    """The removal of clips from the catalog and from every stream.

    Raises UsageError where neither the catalog nor a stream has a clip, and where no clip would be left; CacheError for
    a data set of an older schema.
    """
    folder = dataset_folder(cache, dataset)
    catalog, gone = Catalog.read(folder), set(ids)
    refuse_older(folder, catalog)
    streams = [stream for stream in list_streams(folder) if stream.modality != "word"]
    held, size = _rows_of(folder, streams, gone)
    if strange := sorted(gone - held - set(catalog.clip_id)):
        raise unknown("clip", strange[0], catalog.clip_id)
    if gone.issuperset(catalog.clip_id):
        raise UsageError("No clip would be left; remove the whole data set instead.")

    def without(now: Catalog | None) -> Catalog:
        now = catalog if now is None else now
        return now.take(np.array([row for row, clip in enumerate(now.clip_id) if clip not in gone], np.int64))

    def act() -> None:
        with _alone(folder, streams):
            pass  # Another writer is met before anything is changed.
        update_catalog(folder, without)
        for stream in streams:
            rewrite_stream(folder, stream, lambda key, digest: None if key in gone else key)
        forget_failures(folder, lambda entry: entry.get("id") in gone)
        forget_thumbnails(folder, gone)

    what = f"{len(gone):,} clip{'s' if len(gone) > 1 else ''} of {len(catalog):,} ({listed(sorted(gone)[:5])}"
    what += f" and {len(gone) - 5:,} more)" if len(gone) > 5 else ")"
    return Removal(folder=folder, what=what, bytes=size, act=act)


def plan_runs(cache: Path, dataset: str | None, runs: Sequence[Path] | None = None) -> Removal:
    """The removal of folders of runs of a data set, or of all its runs. Raises CacheError where it has none."""
    folder = dataset_folder(cache, dataset)
    place = folder / "runs"
    _refuse_link(place)
    if not place.is_dir():
        raise CacheError(f"Data set {folder.name!r} has no runs in the cache.")
    chosen = [place] if runs is None else list(runs)
    for path in chosen:
        _refuse_link(path)
        if path != place and place not in path.parents:
            raise UsageError(f"{str(path)!r} is no run of data set {folder.name!r} in the cache.")
    names = [path.relative_to(place).as_posix() for path in chosen]
    what = (
        f"all runs ({_count_runs(folder)})"
        if runs is None
        else f"run{'s' if len(names) > 1 else ''} {listed(names)}"
    )
    return Removal(
        folder=folder, what=what, bytes=sum(map(_size, chosen)), act=lambda: _discard(cache, chosen)
    )


@contextmanager
def _alone(folder: Path, streams: Sequence[StreamName]) -> Iterator[None]:
    """Hold the locks of these streams. Raises CacheError where another process writes one of them."""
    with ExitStack() as held:
        for stream in streams:
            held.callback(os.close, lock_stream(stream_folder(folder, stream), stream))
        yield


def _discard(cache: Path, paths: Sequence[Path]) -> None:
    """Rename files or folders out of their place, then delete them."""
    for left in cache.glob(".removed-*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _LEFT_ALONE:
                shutil.rmtree(left)
    aside = cache / f".removed-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        aside.mkdir()
        for number, path in enumerate(paths):
            os.replace(path, aside / str(number))
    except OSError as error:
        with suppress(OSError):
            aside.rmdir()
        raise CacheError(
            f"{error.filename!r} could not be removed: {error.strerror or error}; check its permissions."
        ) from None
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise CacheError(
            f"What was removed lies in {str(aside)!r} and could not be deleted ({error.strerror or error}); delete it."
        ) from None


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise CacheError(f"{str(path)!r} is a link to a place outside; remove what it leads to there.")


def _rows_of(folder: Path, streams: Sequence[StreamName], keys: set[str]) -> tuple[set[str], int]:
    """Those of ``keys`` that a stream has a row of, and the bytes of the features of these rows."""
    held: set[str] = set()
    size = 0
    for stream in streams:
        for path in shard_paths(folder, stream):
            shard = read_shard(path, features=False, facts=False)
            rows = [row for row, key in enumerate(shard.key) if key in keys]
            held.update(shard.key[row] for row in rows)
            steps = int(np.diff(shard.offset)[rows].sum())
            size += steps * shard.provenance.dim * np.dtype(shard.provenance.dtype).itemsize
    return held, size


def _count_runs(folder: Path) -> int:
    return sum(1 for _ in (folder / "runs").rglob("metrics.json"))


def _size(path: Path) -> int:
    """The bytes of all files at and below a path."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() or file.is_symlink())
