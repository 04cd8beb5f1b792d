"""The files that a table names by paths: where they lie below one root, and why some of them are not there."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import UsageError
from ...machine.texts import composed
from .frame_folders import frames_by_folder
from .walk import IMAGE, is_inside

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_EXAMINED = 100  # The number of missing files whose cause is looked for.


class ListedPaths:
    """The paths of a table, relative to a root that they may not leave.

    given: the root as the user names it. follow_links: whether links may lead out of the root.
    """

    def __init__(self, given: Path, *, follow_links: bool) -> None:
        self.root = Path(os.path.realpath(given))
        self._given = os.path.abspath(given)
        self._follow_links = follow_links
        self._listed: dict[str, frozenset[str]] = {}
        self._likeness: dict[tuple[str, Callable[[str], str]], dict[str, list[str]]] = {}

    def named(self, cell: str, line: int) -> str:
        """The normalised path below the root that a cell names, whether it exists or not.

        A backslash divides folders unless a file has it in its name. Raises UsageError, with the line, for a cell that
        names no place below the root.
        """
        cell = cell.strip(" \t")
        if _ADDRESS.match(cell):
            raise UsageError(
                f"Line {line} of the CSV file: {cell!r} is an address; fetch the file and give its path."
            )
        path = self._below(cell)
        if "\\" in cell and (path is None or not os.path.lexists(self.root / path)):
            if _DRIVE.match(cell):
                raise UsageError(
                    f"Line {line} of the CSV file: path {cell!r} is that of a Windows drive; write paths relative to "
                    f"{str(self.root)!r}."
                )
            path = self._below(cell.replace("\\", "/"))
        if path is None:
            raise UsageError(
                f"Line {line} of the CSV file: path {cell!r} is not a file inside {str(self.root)!r}; if it is right, "
                "name the folder that holds all files by --root."
            )
        return path

    def _below(self, cell: str) -> str | None:
        path = os.path.normpath(os.path.join(self.root, cell))
        if path.startswith(self._given + os.sep):  # An absolute path may reach the root by the same links.
            path = os.path.join(self.root, os.path.relpath(path, self._given))
        if not cell or "\0" in cell or path == str(self.root) or not is_inside(str(self.root), path):
            return None
        return Path(os.path.relpath(path, self.root)).as_posix()

    def found(self, path: str) -> str | None:
        """The path of the regular file that a path names, in Unicode's other spelling if need be; None if absent."""
        if os.path.isfile(self.root / path):
            return path
        other = self._walked(path, composed)
        return other if other is not None and os.path.isfile(self.root / other) else None

    def frames(self, path: str) -> tuple[Path, ...]:
        """The frames, in order, where a path names a folder of numbered images; none where it does not."""
        images = [f"{path}/{name}" for name in self._names(path) if name.rpartition(".")[2].lower() in IMAGE]
        return tuple(self.root / frame for frame in frames_by_folder(images).get(path, ()))

    def leads_out(self, path: str) -> bool:
        """Whether a file is refused because it lies outside the root, where a link leads."""
        return not self._follow_links and not is_inside(str(self.root), os.path.realpath(self.root / path))

    def why_missing(self, path: str) -> str:
        """A clause that says why a file is absent, where that can be found out; else ""."""
        if os.path.isdir(self.root / path):
            return "is a folder; if it holds the numbered frames of a video, give --frame-rate"
        if (other := self._walked(path, str.casefold)) is not None:
            return f"is there as {other!r}: upper and lower case differ"
        folder, _, name = path.rpartition("/")
        stem = name if "." not in name else name.rpartition(".")[0]
        same = [n for n in self._names(folder) if n.startswith(f"{stem}.")]
        if same:
            return f"is there as {(f'{folder}/' if folder else '') + min(same)!r}: the ending differs"
        return ""

    def causes(self, missing: Sequence[str]) -> list[str]:
        """A sentence that says why files are absent, where that can be found out for any of the first ones."""
        told = [(path, why) for path in missing[:_EXAMINED] if (why := self.why_missing(path))]
        if not told:
            return []
        path, why = told[0]
        how = "as folders" if os.path.isdir(self.root / path) else "under other names"
        return [f"Of the files that do not exist, {len(told)} or more lie there {how}: {path!r} {why}."]

    def _walked(self, path: str, same: Callable[[str], str]) -> str | None:
        """The existing path whose parts are alike, where each step has one such name; None where there is none."""
        place = ""
        for part in path.split("/"):
            alike = [part] if part in self._names(place) else self._alike(place, same).get(same(part), [])
            if len(alike) != 1:
                return None
            place = f"{place}/{alike[0]}" if place else alike[0]
        return place

    def _alike(self, folder: str, same: Callable[[str], str]) -> dict[str, list[str]]:
        """The names in a folder by what is the same for names that are alike, found once."""
        key = folder, same
        if key not in self._likeness:
            groups: dict[str, list[str]] = defaultdict(list)
            for name in self._names(folder):
                groups[same(name)].append(name)
            self._likeness[key] = dict(groups)
        return self._likeness[key]

    def _names(self, folder: str) -> frozenset[str]:
        """The names in a folder below the root, read once; none where it cannot be read."""
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(self.root / folder))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]
