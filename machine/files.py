"""Writing files that are whole or absent, since they are renamed when complete, and reading tables of JSON or YAML."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import FsmmError, UsageError
from .json_text import json_text
from .yaml_text import yaml_value


@contextmanager
def whole_or_absent(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A temporary path to write, which becomes ``path`` when the block ends and is removed when it raises.

    The block makes a file or a folder at the temporary path. Its name holds the process and a random number, so that
    two writers of one file never share it, on whichever machines they run: the later one wins as a whole. durable: the
    contents reach the disk before the name does, so that a power cut leaves the old file or the new one (``sync_names``
    makes the new one last). Raises the errors of the block, and OSError where the file cannot be renamed; an OSError
    that names no file gets the name of ``path``.

    >>> import tempfile
    >>> place = Path(tempfile.mkdtemp()) / "result.txt"
    >>> with whole_or_absent(place) as temporary:
    ...     _ = temporary.write_text("42")
    ...     place.exists()
    False
    >>> place.read_text()
    '42'
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if durable:
            _flush(temporary)
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):  # The first error is the one to tell.
            _remove(temporary)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise


def sync_names(folder: Path) -> None:
    """Ask the system to bring the names of a folder's files to the disk; without it, a power cut may undo renames."""
    _flush(folder)


def write_bytes(path: Path, contents: bytes | memoryview, *, durable: bool = False) -> None:
    """Write a file whole or absent (see ``whole_or_absent``). Raises OSError where it cannot be written."""
    with whole_or_absent(path, durable=durable) as temporary, open(temporary, "wb", buffering=0) as file:
        rest = memoryview(contents)
        while rest.nbytes:  # A system call writes 2 GiB at most.
            rest = rest[file.write(rest) :]


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or absent, as ``json_text`` states the value; its folder is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, json_text(value, indent=1, sort_keys=True).encode())


def refuse_special(path: Path, what: str, *, error: type[FsmmError] = UsageError) -> None:
    """Raise ``error`` where a path is a pipe, a socket or a device, which would be waited for or read without end.

    what: the name of the file's kind in the error, such as "mapping file". Files, folders and absent paths are fine.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise error(f"The {what} {str(path)!r} is a pipe or a device; give a plain file.")


def parsed_json(text: str, *, once: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError where it is not valid, or is nested too deeply to be read.

    A text with half of a surrogate pair is not valid, since nothing that holds it could be written again; those halves
    that stand for the bytes of a file's name are. once: whether a table that has one key twice, of which the reader
    would keep the last, is refused.

    >>> parsed_json('{"a": [1, null]}')
    {'a': [1, None]}
    """
    try:
        value = json.loads(text, object_pairs_hook=_with_keys_once if once else None)
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return value


def _with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The table of these keys and values. Raises ValueError for a key that comes twice."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for place, key in enumerate(keys) if key in keys[:place])
        raise ValueError(f"the key {twice!r} comes twice in one table")
    return table


def read_text(path: Path, *, most: int) -> str:
    """The UTF-8 text of a file of at most so many bytes, without a byte order mark.

    Raises OSError where it cannot be read, ValueError where it is larger or is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None


_TABLE_BYTES = 1 << 28


def read_table(path: Path, what: str, *, error: type[FsmmError] = UsageError) -> dict[str, Any]:
    """The keys and values of a JSON file, or of a YAML file if its name ends in .yaml or .yml.

    what: the name of the file's kind in errors, such as "mapping file". Raises ``error`` where the file cannot be read
    or is not valid, UsageError where it holds something else than keys and values.
    """
    refuse_special(path, what, error=error)
    try:
        text = read_text(path, most=_TABLE_BYTES)
    except (OSError, ValueError) as found:
        why = found.strerror if isinstance(found, OSError) and found.strerror else found
        raise error(f"The {what} {str(path)!r} cannot be read ({why}).") from None
    kind = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "JSON"
    try:
        table = yaml_value(text) if kind == "YAML" else parsed_json(text, once=True)
    except (ValueError, RecursionError) as found:
        raise error(f"The {what} {str(path)!r} is not valid {kind} ({found}).") from None
    if not isinstance(table, dict):
        raise UsageError(f"The {what} {str(path)!r} must hold a table of keys and values.")
    return table


def _remove(path: Path) -> None:
    """Remove what lies at a temporary path; the error that is on its way is not replaced by another."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
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
