"""Writers of streams, whose troubles with the system are errors of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...cache.schema import Provenance
from ...cache.stream import StreamWriter
from ...errors import CacheError


def open_writer(folder: Path, provenance: Provenance) -> StreamWriter:
    """A stream's writer. Raises CacheError also where its folder cannot be made."""
    with writable(folder):
        return StreamWriter(folder, provenance)


def release(writer: StreamWriter) -> None:
    """Close a stream. Rows that could not be flushed were reported by the error that brought us here."""
    with suppress(CacheError):
        writer.close()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Inside the block, what the system says about a data set's folder is raised as a CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"The cache {str(folder.parent)!r} cannot be written ({error.strerror or error}); choose another --cache."
        ) from error
