"""Arrays that lie apart for each clip: a dataset, a group, a member of an archive or an entry of a dict a clip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from ...errors import UsageError, unknown
from ...machine.texts import composed
from .columns import Column


class ClipColumn(Column):
    """One array for each clip.

    members: the name of each clip's array, by clip id; ids may spell an accent in either way. read: gives the array of
    a name.
    """

    rows = None

    def __init__(self, name: str, members: Mapping[str, str], read: Callable[[str], np.ndarray]) -> None:
        super().__init__(name)
        self.members, self._read = members, read
        self._by_composed = {composed(clip): member for clip, member in members.items()}

    def ids(self) -> list[str]:
        return list(self.members)

    def _values(self) -> np.ndarray:
        raise ValueError("it has one dataset a clip where one array is needed")

    def _clips(self, ids: Sequence[str]) -> Iterator[np.ndarray | None]:
        for clip in ids:
            member = self.members.get(clip) or self._by_composed.get(composed(clip))
            yield None if member is None else self._read(member)


def members_of(name: str, names: Iterable[str]) -> dict[str, str]:
    """The names that an array of one part a clip stands for, by clip; none if it stands for none.

    ``*`` stands for the clip: ``*/c3d`` and ``features/*``; ``c3d`` and ``features`` alone are understood, too.
    """
    listed = list(names)
    for pattern in (name, f"*/{name}", f"{name}/*"):
        if found := _matching(pattern, listed):
            return found
    return {}


def one_a_clip(places: Sequence[str]) -> dict[str, str]:
    """Places that differ in one part of their paths, by that part; none where they do not."""
    parts = places[0].split("/") if len(places) > 1 else []
    for number in range(len(parts)):
        pattern = "/".join([*parts[:number], "*", *parts[number + 1 :]])
        if len(found := _matching(pattern, places)) == len(places):
            return found
    return {}


def _matching(pattern: str, names: Iterable[str]) -> dict[str, str]:
    before, star, after = pattern.partition("*")
    if not star or "*" in after:
        return {}
    found = {
        name[len(before) : len(name) - len(after)]: name
        for name in names
        if name.startswith(before) and name.endswith(after)
    }
    return {
        clip: name for clip, name in found.items() if "/" not in clip and name == f"{before}{clip}{after}"
    }


def unknown_array(source: str, name: str, names: Sequence[str], more: Iterable[str] = ()) -> UsageError:
    """The error for an unknown array, which names what a source of one part a clip holds by patterns.

    more: further names that would do, such as those of attributes.
    """
    what = f"array of source {source!r}"
    inner = Counter(path.partition("/")[2] for path in names if path.count("/") == 1)
    repeated = {array for array, count in inner.items() if count > 1}
    if not repeated:
        return unknown(what, name, [*names, *more])
    single = [path for path in names if path.count("/") != 1 or path.partition("/")[2] not in repeated]
    known = [*(f"*/{array}" for array in repeated), *single, *more]
    return UsageError(
        f"{unknown(what, name, known)} The file has one group a clip: name what each group "
        "holds as an array; ids and labels come from there, or from another source, such as a CSV file."
    )
