"""Whether a listing's clips may join a data set of the cache, and under which ids.

Two folders of one name are different data: without this check their clips would be mixed, and a clip of one that has
the path of a clip of the other would keep the other's features.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...cache.catalog import Catalog
from ...cache.origin import UNKNOWN_KIND, ClipSources, Origin
from ...errors import CacheError
from ..clip_files import State, digest_of
from ..datasets.base import Listing

_SAMPLE = 16  # clips whose files are compared before one place is taken for another


@dataclass(frozen=True)
class Admission:
    """The place of a listing's origin in a catalog."""

    number: int
    """The index of the origin among the catalog's; it may be one more than there are."""
    origin: Origin
    """The listing's origin."""
    note: str = ""
    """A sentence for the user, or ""."""


def admit(held: Catalog, listing: Listing, *, into: bool) -> Admission:
    """The place of a listing's origin among those of the data set in the cache.

    into: the user wants clips of another origin to join. Raises CacheError for another origin otherwise. An origin of
    the cache that is unknown, or whose folder is gone, is taken for the listing's where the files are the same.
    """
    assert listing.origin is not None
    mine, origins = listing.origin, held.sources.origins
    for number, origin in enumerate(origins):
        if origin.is_same(mine):
            return Admission(number, mine)
    for number, origin in enumerate(origins):
        if not origin.is_known and _is_same_data(held, listing, number, unless_known=True):
            return Admission(number, mine)
        is_gone = origin.root != "" and not os.path.exists(origin.root)
        if is_gone and origin.is_same_elsewhere(mine) and _is_same_data(held, listing, number):
            note = f"The files of {origin.text()}, which is gone, are found in {mine.text()}, which takes its place."
            return Admission(number, mine, note)
    if into:
        return Admission(len(origins), mine)
    raise CacheError(_refusal(held, mine))


def _refusal(held: Catalog, mine: Origin) -> str:
    names = [origin.text() for origin in held.sources.origins if origin.kind != UNKNOWN_KIND]
    made = f"was made from {' and '.join(names[:3])}" if names else "holds other clips"
    return (
        f"Data set {held.dataset!r} of the cache {made}, not from {mine.text()}: give this one a name of its own by "
        f"--name NAME, or unite the two by --into {held.dataset}."
    )


def _is_same_data(held: Catalog, listing: Listing, number: int, *, unless_known: bool = False) -> bool:
    """Whether the clips of one origin are files that the listing has under the same ids, judged by some of them.

    unless_known: clips whose digest the cache does not know count as the same.
    """
    sources = held.sources
    digest = held.facts["sha256"]
    shared = [
        row
        for row, clip in enumerate(held.clip_id)
        if sources.origin[row] == number and clip in listing.sources
    ]
    known = [row for row in shared if digest[row]]
    if not known:
        return unless_known and bool(shared)
    step = max(len(known) // _SAMPLE, 1)
    sample = known[::step][:_SAMPLE]
    same = sum(digest_of(listing.sources[held.clip_id[row]]).encode() == digest[row] for row in sample)
    return 2 * same > len(sample)


def settled(held: Catalog, listing: Listing, number: int) -> tuple[Listing, list[str]]:
    """The listing under the ids that its clips have in the data set, and a sentence where some are not their own.

    number: the place of the listing's origin. A clip whose id belongs to a clip of another origin is called ``id@2``
    where its origin is the second one. Files that two tables of one folder name are one clip, and so are an imported
    clip without a file and the file of that id.
    """
    sources = held.sources
    if len(sources.origins) == 1 and number == 0:
        return listing, []
    rows = held.rows()
    path_of = dict(zip(listing.catalog.clip_id, listing.catalog.path))
    new = {}
    for clip in [*listing.catalog.clip_id, *listing.missing]:
        other = f"{clip}@{number + 1}"
        row = rows.get(clip)
        is_taken = row is not None and not _is_own(held, listing, row, number, path_of.get(clip, ""))
        new[clip] = other if is_taken or (row is None and other in rows) else clip
    renamed = [clip for clip, name in new.items() if clip != name]
    twice = [name for name, count in Counter(new.values()).items() if count > 1]
    if twice:
        raise CacheError(
            f"Clip {twice[0]!r} of the new data has the name that another of its clips would get in data set "
            f"{held.dataset!r}; give the new data a name of their own by --name NAME."
        )
    catalog = replace(listing.catalog, clip_id=[new[clip] for clip in listing.catalog.clip_id])
    notes = []
    imported = [clip for clip in listing.catalog.clip_id if clip in rows and _is_import(held, rows[clip])]
    if imported:
        notes.append(
            f"Imported clips without a file get the files of the same ids ({len(imported):,}, such as {imported[0]!r})."
        )
    if renamed:
        notes.append(
            f"Other data of this data set has clips of the same ids ({len(renamed):,}); here, {renamed[0]!r} is called "
            f"{new[renamed[0]]!r}, and so on."
        )
    return replace(
        listing,
        catalog=catalog,
        sources={new[clip]: source for clip, source in listing.sources.items()},
        missing=[new[clip] for clip in listing.missing],
    ), notes


def _is_own(held: Catalog, listing: Listing, row: int, number: int, path: str) -> bool:
    """Whether the clip in a row of the catalog is the one that the listing calls by the same id."""
    sources = held.sources
    brought = int(sources.origin[row])
    origin = sources.origins[brought]
    if brought == number or not origin.is_known:
        return True
    if number < len(sources.origins) and sources.listed[row, number]:
        return True
    same_file = bool(path) and held.path[row] == path and listing.origin is not None
    if same_file and listing.origin is not None and origin.folder and origin.folder == listing.origin.folder:
        return True
    return _is_import(held, row)


def _is_import(held: Catalog, row: int) -> bool:
    """Whether a clip was imported and no file of it is known."""
    return held.sources.origins[held.sources.origin[row]].kind == "import" and not held.facts["sha256"][row]


def sourced(listing: Listing, states: Sequence[State]) -> Catalog:
    """The catalog of a listing with its origin and the states of the n clips' files."""
    assert listing.origin is not None
    catalog = listing.catalog
    sources = ClipSources(
        origins=[listing.origin],
        origin=np.zeros(len(catalog), np.int32),
        size=np.array([state.size for state in states], np.int64),
        mtime_ns=np.array([state.mtime_ns for state in states], np.int64),
        part=np.array([state.part for state in states], object),
    )
    return replace(catalog, sources=sources)
