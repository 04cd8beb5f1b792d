"""The repairs of `fsmm cache verify --repair`: each is a function without arguments that returns a note of its work."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import CacheError
from ..header import header_is_right
from ..schema import Provenance
from ..shard import KIND, read_shard, write_shard
from .salvage import salvage

ASIDE = ".set-aside"


def deletion(path: Path) -> Callable[[], str]:
    """The repair that deletes a file that holds nothing."""

    def fix() -> str:
        path.unlink(missing_ok=True)
        return "deleted"

    return fix


def set_aside(path: Path) -> Callable[[], str]:
    """The repair that renames a file, so that nothing reads it and nothing in it is lost."""

    def fix() -> str:
        target, number = path.with_name(path.name + ASIDE), 1
        while target.exists():
            target, number = path.with_name(f"{path.name}.{number}{ASIDE}"), number + 1
        os.replace(path, target)
        return f"set aside as {target.name}"

    return fix


def without_rows(path: Path, indices: Sequence[int]) -> Callable[[], str]:
    """The repair that rewrites an undamaged shard without the rows ``indices``."""

    def fix() -> str:
        shard = read_shard(path)
        rest = [i for i in range(len(shard)) if i not in set(indices)]
        if not rest:
            path.unlink()
            return "deleted: all of it is elsewhere in the stream"
        write_shard(path, shard.take(rest))
        return f"rewritten without {len(indices)} of {len(shard)} rows"

    return fix


def rewriting(path: Path, origin: tuple[str, Provenance] | None) -> Callable[[], str]:
    """The repair that replaces a damaged shard by its good rows, or deletes it where it has none.

    The repair raises CacheError, and changes nothing, where good rows cannot be written.
    """

    def fix() -> str:
        beside = path.with_name(f".{path.name}.repair.tmp")
        try:
            verdict = salvage(path, beside, origin)
            if beside.is_file() and header_is_right(beside, KIND):
                os.replace(beside, path)
                return f"rewritten with its {verdict.good} good rows of {verdict.rows}"
            if verdict.good and verdict.origin:
                raise CacheError(f"The good clips of {str(path)!r} could not be rewritten: {verdict.dropped}")
            path.unlink()
            return "deleted: nothing in it can be trusted"
        finally:
            beside.unlink(missing_ok=True)

    return fix
