"""Whether a listing's clips may join a data set of the cache, and under which ids.

Two folders of one name are different data: without this check their clips would be mixed, and a clip of one that has
the path of a clip of the other would keep the other's features.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
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
    """The listing under the ids that its clips have in the data set, and sentences about those that are not their own.

    number: the place of the listing's origin. A clip whose id belongs to a clip of another origin is called ``id@2``
    where its origin is the second one. Files that two tables of one folder name are one clip, and so are an imported
    clip without a file and the file of that id. Raises CacheError where two clips would get one id.
    """
    if len(held.sources.origins) == 1 and number == 0:
        return listing, []
    new = _ids_in(held, listing, number)
    twice = [name for name, count in Counter(new.values()).items() if count > 1]
    if twice:
        raise CacheError(
            f"Clip {twice[0]!r} of the new data has the name that another of its clips would get in data set "
            f"{held.dataset!r}; give the new data a name of their own by --name NAME."
        )
    return replace(
        listing,
        catalog=replace(listing.catalog, clip_id=[new[clip] for clip in listing.catalog.clip_id]),
        sources={new[clip]: source for clip, source in listing.sources.items()},
        missing=[new[clip] for clip in listing.missing],
    ), _about_ids(held, new)


def _ids_in(held: Catalog, listing: Listing, number: int) -> dict[str, str]:
    """The id in the data set of each clip of a listing, present or missing."""
    rows = held.rows()
    path_of = dict(zip(listing.catalog.clip_id, listing.catalog.path))
    new = {}
    for clip in [*listing.catalog.clip_id, *listing.missing]:
        other = f"{clip}@{number + 1}"
        row = rows.get(clip)
        is_taken = row is not None and not _is_own(held, listing, number, row, path_of.get(clip, ""))
        new[clip] = other if is_taken or (row is None and other in rows) else clip
    return new


def _about_ids(held: Catalog, new: Mapping[str, str]) -> list[str]:
    """Sentences about clips that are called by another id than their own, or take the place of imported ones."""
    rows, notes = held.rows(), []
    if imported := [clip for clip, name in new.items() if clip == name and _is_import(held, rows.get(clip))]:
        notes.append(
            f"Imported clips without a file get the files of the same ids ({len(imported):,}, such as {imported[0]!r})."
        )
    if renamed := [clip for clip, name in new.items() if clip != name]:
        notes.append(
            f"Other data of this data set has clips of the same ids ({len(renamed):,}); here, {renamed[0]!r} is called "
            f"{new[renamed[0]]!r}, and so on."
        )
    return notes


def _is_own(held: Catalog, listing: Listing, number: int, row: int, path: str) -> bool:
    """Whether the clip in a row of the catalog is the one that the listing calls by the same id.

    path: the listed clip's path, "" for one that has no file.
    """
    sources = held.sources
    origin = sources.origins[sources.origin[row]]
    if sources.origin[row] == number or not origin.is_known:
        return True
    if number < len(sources.origins) and sources.listed[row, number]:
        return True
    return _is_same_file(held, listing, row, path) or _is_import(held, row)


def _is_same_file(held: Catalog, listing: Listing, row: int, path: str) -> bool:
    """Whether a listed clip is the same part of the same file as the clip in a row of the catalog."""
    assert listing.origin is not None
    folder = held.sources.origins[held.sources.origin[row]].folder
    source = listing.sources.get(held.clip_id[row])
    part = "" if source is None else source.part
    is_same_place = path != "" and held.path[row] == path and folder != "" and folder == listing.origin.folder
    return is_same_place and held.sources.part[row] == part


def _is_import(held: Catalog, row: int | None) -> bool:
    """Whether a clip was imported and no file of it is known; false for no row."""
    if row is None:
        return False
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
