"""The first attempt to fill a data set's folder: where it fails or stores nothing, no data set is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CacheError
from .schema import StreamName, list_streams
from .stream import lock_stream
from .thumbnails import THUMBNAILS


@contextmanager
def first_attempt(
    folder: Path, *, is_worth_keeping: Callable[[list[StreamName]], bool], whole: bool = False
) -> Iterator[None]:
    """Remove the data set that the block makes in ``folder``, where it leaves nothing worth keeping.

    is_worth_keeping: told the streams that have a shard, asked when the block ends or raises. whole: after an error
    nothing is. Catalog and streams go, and each folder that is then empty and was not there before; lists of failures
    stay. A data set that was there before is left alone, and so is one in which another process is writing.
    """
    there = (folder / "catalog.h5").exists() or bool(list_streams(folder))
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    failed = False
    try:
        yield
    except Exception:
        failed = True
        raise
    finally:
        if not there and ((failed and whole) or not is_worth_keeping(list_streams(folder))):
            with suppress(OSError, CacheError):
                _remove(folder)
            for place in absent:
                with suppress(OSError):  # It is not empty, or was never made.
                    place.rmdir()


def _remove(folder: Path) -> None:
    """Remove the catalog and the streams. Raises CacheError, and removes nothing, where another process is writing."""
    streams = [StreamName(place.parent.name, place.name) for place in folder.glob("streams/*/*")]
    locks: list[int] = []
    try:
        locks = [lock_stream(folder / "streams" / s.modality / s.encoder, s) for s in streams]
        for name in ("catalog.h5", THUMBNAILS):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "streams", ignore_errors=True)
        for lock in folder.glob(".*.lock"):
            lock.unlink(missing_ok=True)
    finally:
        for handle in locks:
            os.close(handle)
