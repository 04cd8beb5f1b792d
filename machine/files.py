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
from .trees import tree_size


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


def parsed_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where it is not valid, or is nested too deeply to be read.

    >>> parsed_json('{"a": [1, null]}')
    {'a': [1, None]}
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_table(path: Path, what: str, *, error: type[FsmmError] = UsageError) -> dict[str, Any]:
    """The keys and values of a JSON file, or of a YAML file if its name ends in .yaml or .yml.

    what: the name of the file's kind in errors, such as "mapping file". Raises ``error`` where the file cannot be read
    or is not valid, UsageError where it holds something else than keys and values.
    """
    refuse_special(path, what, error=error)
    try:
        text = path.read_text("utf-8")
    except OSError as found:
        raise error(f"The {what} {str(path)!r} cannot be read ({found.strerror or found}).") from None
    except UnicodeDecodeError:
        raise error(f"The {what} {str(path)!r} cannot be read (it is not UTF-8 text).") from None
    kind = "YAML" if path.suffix.lower() in (".yaml", ".yml") else "JSON"
    try:
        table = _yaml(text) if kind == "YAML" else parsed_json(text)
    except (ValueError, RecursionError) as found:
        raise error(f"The {what} {str(path)!r} is not valid {kind} ({found}).") from None
    if not isinstance(table, dict):
        raise UsageError(f"The {what} {str(path)!r} must hold a table of keys and values.")
    return table


def located_yaml(text: str) -> tuple[Any, Lines]:
    """The content of a YAML text, and the line of each of its values. Raises ValueError where it is not valid.

    The lines, which begin at 1, are given by path: the keys and positions that lead from the top to the value. The line
    of an entry of a table is that of its key.

    >>> located_yaml("a: [1, {b: 2}]")
    ({'a': [1, {'b': 2}]}, {(): 1, ('a',): 1, ('a', 0): 1, ('a', 1): 1, ('a', 1, 'b'): 1})
    """
    value, node = _yaml_and_node(text, most=_LOCATED_VALUES)
    return value, {} if node is None else dict(_lines(node, ()))


def _yaml(text: str) -> Any:
    """The content of a YAML text. Raises ValueError where it is not valid."""
    return _yaml_and_node(text, most=_YAML_VALUES)[0]


def _yaml_and_node(text: str, *, most: int) -> tuple[Any, Any]:
    """The content of a YAML text, of at most so many values, and its node. Raises ValueError where it is not valid."""
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        # An alias is a reference to a node, so that a few lines can stand for more values than any memory holds.
        if tree_size(node, _node_parts) > most:
            raise ValueError(f"its aliases make it stand for more than {most:,} values")
        return loader.construct_document(node), node
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    finally:
        loader.dispose()


Lines = dict[tuple[Any, ...], int]
"""The line of each value of a text, by path."""


def _lines(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The path and line of a YAML node and of all within it."""
    yield path, node.start_mark.line + 1
    if isinstance(node.value, str):
        return
    for place, entry in enumerate(node.value):
        if isinstance(entry, tuple):
            key, value = entry
            inner = (*path, key.value if isinstance(key.value, str) else place)
            yield from _lines(value, inner)
            yield inner, key.start_mark.line + 1
        else:
            yield from _lines(entry, (*path, place))


_YAML_VALUES, _LOCATED_VALUES = 10_000_000, 100_000


def _node_parts(node: Any) -> list[Any] | int:
    """The nodes within a YAML node, or 1 for a scalar."""
    if isinstance(node.value, str):
        return 1
    return [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]


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
