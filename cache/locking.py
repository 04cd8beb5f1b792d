"""Locks between processes, and changes of a data set's catalog under its lock.

The locks are advisory ones of the system, which it releases when a process ends, however it ends.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import CacheError
from .catalog import Catalog
from .schema import OLDER_SCHEMAS, SCHEMA_VERSION

CATALOG, FAILURES = "catalog", "failures"
_PATIENCE = 120.0  # seconds; whoever holds a lock reads and writes one file
_PAUSE = 0.02


@contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold the lock of a data set's ``what`` (CATALOG or FAILURES) inside the block; its folder is made if need be.

    Where the platform has no such locks, the caller must see to it that one process writes at a time.
    Raises CacheError where another process holds it for two minutes, OSError where the lock's file cannot be made.
    """
    deadline = time.monotonic() + _PATIENCE
    while (handle := _attempt(folder / f".{what}.lock")) is None:
        if time.monotonic() > deadline:
            raise CacheError(
                f"Another process has held the {what} of data set {folder.name!r} for {_PATIENCE:.0f} s; end it, or "
                "wait for it, and run the same again."
            )
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        os.close(handle)


def _attempt(path: Path) -> int | None:
    """The handle of the lock's file, if the lock could be had, and the file is still the one of that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    if try_lock(handle) and _is_still(handle, path):
        return handle
    os.close(handle)
    return None


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, and return whether it could be had; true where the platform has no locks."""
    try:
        fcntl = importlib.import_module("fcntl")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # Windows and some network file systems have no such locks.
        pass
    return True


def update_catalog(folder: Path, change: Callable[[Catalog | None], Catalog]) -> Catalog:
    """Replace a data set's catalog by what ``change`` makes of it (of None where there is none), and return it.

    The catalog is read, changed and written under the data set's lock, so that of two writers neither loses a clip.
    Raises CacheError where the catalog is of an older schema, and where it cannot be read or written; whatever
    ``change`` raises passes through. A folder that holds nothing then is removed.
    """
    with locked(folder, CATALOG):
        try:
            held = Catalog.read(folder) if (folder / "catalog.h5").is_file() else None
            if held is not None:
                refuse_older(folder, held)
            catalog = change(held)
            catalog.write(folder)
            return catalog
        except BaseException:
            _remove_empty(folder)
            raise


def about_schema(folder: Path, catalog: Catalog) -> str:
    """A sentence about a catalog of an older schema, which can be read and must not be changed; "" for the newest."""
    if catalog.schema not in OLDER_SCHEMAS:
        return ""
    return (
        f"Data set {folder.name!r} has cache schema {catalog.schema} of an earlier fsmm and can only be read; "
        f"`fsmm cache upgrade --cache {folder.parent}` brings it to schema {SCHEMA_VERSION} and decodes nothing."
    )


def refuse_older(folder: Path, catalog: Catalog) -> None:
    """Raise CacheError where a catalog is of an older schema, which must not be changed."""
    if sentence := about_schema(folder, catalog):
        raise CacheError(sentence)


def _remove_empty(folder: Path) -> None:
    """Remove a data set's folder that holds no more than a lock."""
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [f".{CATALOG}.lock"]:
            (folder / f".{CATALOG}.lock").unlink()
        folder.rmdir()
