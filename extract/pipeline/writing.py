"""Writers of streams, which turn errors of the system into errors of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...cache.schema import Provenance
from ...cache.stream import StreamWriter
from ...errors import CacheError


def open_writer(folder: Path, provenance: Provenance) -> StreamWriter:
    """A stream's writer. Raises CacheError, also if the stream's folder cannot be made."""
    with writable(folder):
        return StreamWriter(folder, provenance)


def release(writer: StreamWriter) -> None:
    """Close a stream after an error, which has already reported any rows that could not be flushed."""
    with suppress(CacheError):
        writer.close()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Raise the system's errors about a data set's folder as CacheError inside the block."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"The cache {str(folder.parent)!r} cannot be written ({error.strerror or error}); choose another --cache."
        ) from error
