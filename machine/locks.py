"""Locks by which processes take turns at a folder; the system releases them when a process ends."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def turn_at(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Wait for the turn at an existing folder and keep it for the block; it leaves no file behind.

    shared: readers, who may have their turn together but never beside a writer. Where the platform or the file system
    has no such locks (Windows, some network file systems), the block runs at once. Raises OSError where the folder
    cannot be opened.
    """
    if not hasattr(os, "O_DIRECTORY"):
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl = importlib.import_module("fcntl")
            fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except (ImportError, OSError):  # The digests of what is written still tell whether writers met.
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def lock_of(path: Path) -> Iterator[bool]:
    """Try to lock a file, which is made if need be, for the block; the value says whether that was possible.

    The system unlocks the file when the process ends, also by ``kill -9``, so that no lock is ever left over; the empty
    file stays. Where the platform or the file system has no such locks, it is always possible. Raises OSError where the
    file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl = importlib.import_module("fcntl")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except (ImportError, OSError):
            pass
        yield True
    finally:
        os.close(handle)
