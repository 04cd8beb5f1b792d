"""Relation graphs of data sets that are merged: each comes along once, and two of one name must be equal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import CacheError
from ...machine.files import write_bytes
from .graph import graph_digest, graphs_of, path_of


def agreed_graphs(folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each relation graph that any of the data sets' folders holds, by its name.

    Where a graph was read from, and by which release, is no difference. Raises CacheError where two graphs of one name
    have other nodes, edges or vectors, or a file is no graph.
    """
    found: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        for name in graphs_of(folder):
            digest = graph_digest(folder, name)
            first, held = found.setdefault(name, (folder, digest))
            if held != digest:
                raise CacheError(
                    f"Relation graph {name!r} of dataset {folder.name!r} has other nodes, edges or vectors in "
                    f"{str(first.parent)!r} than in {str(folder.parent)!r}; rename or delete the file in one of them."
                )
    return {name: path_of(folder, name) for name, (folder, _) in found.items()}


def copy_graphs(graphs: dict[str, Path], target: Path) -> list[str]:
    """Copy the graphs that the target's folder lacks, each whole or not at all, and return their names."""
    new = [name for name in graphs if not path_of(target, name).exists()]
    for name in new:
        path = path_of(target, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, graphs[name].read_bytes(), durable=True)
        except OSError as error:
            raise CacheError(f"{str(path)!r} cannot be written ({error.strerror}); make room.") from None
    return new
