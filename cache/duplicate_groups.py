"""Groups of clips that are copies of one another, made of pairs without chaining.

If every pair were followed, clips that are only somewhat alike would join one to the next into one great group. Two
groups therefore become one only where at least half of the pairs between their clips were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CacheError
from .catalog import Catalog
from .locking import update_catalog

if TYPE_CHECKING:
    from .duplicates import Likeness

PREFIX = "duplicates of "
"""What the names of groups begin with that were found here; the first clip's id follows."""
_SHARE = 0.5  # of the pairs between two groups


def grouped(catalog: Catalog, pairs: Sequence[Likeness]) -> list[str]:
    """The group of each clip where duplicates share one; groups of the catalog stay together.

    Groups that an earlier search made are forgotten first. A joined group keeps the name that comes first in the
    catalog; one of clips without a group is named ``duplicates of ID``, after its first clip.
    """
    rows = catalog.rows()
    own = ["" if name.startswith(PREFIX) else name for name in catalog.group]
    first_of: dict[str, int] = {}
    group = [first_of.setdefault(name, row) if name else row for row, name in enumerate(own)]
    links = [(p.likeness, rows[p.first], rows[p.second]) for p in pairs]
    joined = _joined(group, links)
    names: dict[int, str] = {}
    for row, name in enumerate(own):
        if name:
            names.setdefault(joined[row], name)
    sizes = [0] * len(own)
    for top in joined:
        sizes[top] += 1
    return [names.get(top, f"{PREFIX}{catalog.clip_id[top]}" if sizes[top] > 1 else "") for top in joined]


def _joined(group: list[int], links: list[tuple[float, int, int]]) -> list[int]:
    """The first row of the group of each row, after groups are joined by links, strongest first.

    group: the first row of each row's group. links: the likeness and the rows of each pair. A clip without any pair
    does not count in the size of its group.
    """
    group = list(group)
    linked = {row for _, i, j in links for row in (i, j)}
    member: dict[int, set[int]] = {}
    for row in linked:
        member.setdefault(group[row], set()).add(row)
    partner: dict[int, set[int]] = {row: set() for row in linked}
    for _, i, j in links:
        partner[i].add(j)
        partner[j].add(i)
    top = {row: group[row] for row in linked}
    changed = True
    while changed:
        changed = False
        for _, i, j in sorted(links, key=lambda link: (-link[0], link[1:])):
            one, other = sorted((top[i], top[j]))
            if one == other:
                continue
            found = sum(len(partner[row] & member[other]) for row in member[one])
            if found >= _SHARE * len(member[one]) * len(member[other]):
                for row in member[other]:
                    top[row] = one
                member[one] |= member.pop(other)
                changed = True
    moved = {group[row]: top[row] for row in linked}
    return [moved.get(old, old) for old in group]


def write_groups(folder: Path, pairs: Sequence[Likeness]) -> int:
    """Give the clips of pairs common groups in the catalog, and return the number of clips whose group has changed.

    Raises CacheError where the catalog cannot be changed.
    """
    changed = 0

    def joined(held: Catalog | None) -> Catalog:
        nonlocal changed
        if held is None:
            raise CacheError(f"Data set {folder.name!r} has lost its catalog; run the same again.")
        rows = held.rows()
        groups = grouped(held, [pair for pair in pairs if pair.first in rows and pair.second in rows])
        changed = sum(old != new for old, new in zip(held.group, groups))
        return replace(held, group=groups)

    update_catalog(folder, joined)
    return changed
