"""Files that are whole or absent: they are written beside their place under a name of their own, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_or_absent(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path to write, which becomes ``path`` when the block ends and is removed when it raises.

    The block makes a file there, or a folder. The temporary name holds the process and the thread, so that two writers
    of one file never share it: the later one wins as a whole. durable: the contents reach the disk before the name
    does, so that a power cut leaves the old file or the new one. Raises what the block raises, and OSError where the
    file cannot be renamed.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "result.txt"
    >>> with whole_or_absent(place) as temporary:
    ...     _ = temporary.write_text("42")
    ...     place.exists()
    False
    >>> place.read_text()
    '42'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
        if durable:
            _flush(path.parent)
    except BaseException:
        _remove(temporary)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or absent; its folder is made where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_absent(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True, default=str))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Ask the system to bring a file, or the names that a folder holds, to the disk, where it can do so."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
