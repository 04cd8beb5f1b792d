"""Rows that other installed packages add to the tables of methods, encoders and data sets, by entry points."""

from __future__ import annotations

from collections.abc import Container
from importlib.metadata import entry_points
from typing import TypeVar

from ..errors import FsmmError

Row = TypeVar("Row")


def rows_of(group: str, kind: type[Row], taken: Container[str]) -> dict[str, Row]:
    """The rows of an entry-point group by name: each entry point names an object that is a ``kind``.

    Raises FsmmError, naming the entry point, for one that cannot be loaded, is of another kind, or has a name that is
    ``taken`` or given twice.
    """
    found: dict[str, Row] = {}
    for point in entry_points(group=group):
        which = f"Entry point {point.name} = {point.value!r} of {group}"
        try:
            row = point.load()
        except Exception as error:  # Another package may raise any error; ours names its entry point.
            raise FsmmError(f"{which} cannot be loaded ({error}); update or remove its package.") from error
        if not isinstance(row, kind):
            raise FsmmError(
                f"{which} is not a {kind.__module__}.{kind.__name__}; update or remove its package."
            )
        if point.name in taken or point.name in found:
            raise FsmmError(f"{which} has a name that is taken; remove its package.")
        found[point.name] = row
    return found
