"""Taking lines out of a data set's list of failures, whoever else writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...machine.files import parsed_json, whole_or_absent
from ..locking import FAILURES, locked

Drop = Callable[[Mapping[str, object]], bool]


def forget_failures(folder: Path, drop: Drop) -> None:
    """Take out the lines of a data set's failures.jsonl whose entry ``drop`` chooses; other lines stay as they are.

    Raises CacheError where another process holds the list, OSError where it cannot be written.
    """
    path = folder / "failures.jsonl"
    if not path.is_file():
        return
    with locked(folder, FAILURES):
        lines = path.read_text("utf-8", "replace").splitlines()
        kept = [line for line in lines if not drop(_entry(line))]
        if len(kept) < len(lines):
            with whole_or_absent(path) as beside:
                beside.write_text("".join(f"{line}\n" for line in kept), "utf-8")


def _entry(line: str) -> Mapping[str, object]:
    """The entry of a line; an empty one where the line cannot be read."""
    try:
        entry = parsed_json(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}
