"""A listing becomes part of a data set: its origin is admitted, its clips are compared, and the catalog is united.

The catalog is united twice, at the begin and at the end of a run, each time with the one that then lies in the cache,
so that what another process has added meanwhile stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...cache.catalog import FACTS, Catalog
from ...cache.locking import refuse_older, update_catalog
from ...cache.schema import StreamName, list_streams
from ...errors import CacheError
from ..clip_files import NOWHERE, state_of
from ..datasets.base import Listing
from .admission import Admission, admit, settled, sourced
from .changes import Changes, carry_over, compare, known_state, sizes_elsewhere
from .union import united, with_facts
from .writing import writable


@dataclass
class Membership:
    """A listing on its way into a data set."""

    folder: Path
    """The data set's folder."""
    listing: Listing
    """The listing; once compared, with the ids that its clips have in the data set."""
    into: bool
    """Whether another origin may join the data set."""
    new_split: bool
    """Whether the listing's class split replaces the one in the cache."""
    number: int = 0
    """The place of the listing's origin among those of the data set."""
    changes: Changes = field(default_factory=Changes)
    """The clips that changed, moved, or are gone."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user."""

    def compare(self, streams: Sequence[StreamName]) -> None:
        """Compare the listing with the cache, and bring the rows of its streams in line with changed and moved files.

        streams: the streams that the run will make. Raises CacheError where the listing must not join, where another
        process writes a stream with such rows, and where the cache cannot be read or written.
        """
        if not (self.folder / "catalog.h5").is_file():
            held = self.listing.catalog.take(np.zeros(0, np.int64))
            self.changes = compare(held, self.listing, 1, sizes_elsewhere(self.folder, streams))
            return
        held = Catalog.read(self.folder)
        refuse_older(self.folder, held)
        place = admit(held, self.listing, into=self.into)
        self.number = place.number
        self.listing, self.notes = settled(held, self.listing, place.number)
        if place.note:
            self.notes.append(place.note)
        if _lacks_digests(held, self.listing):
            held = with_facts(self.folder, held, _clip_streams(self.folder))
        self.changes = compare(held, self.listing, place.number, sizes_elsewhere(self.folder, streams))
        with writable(self.folder):
            self.notes += carry_over(self.folder, held, self.changes, streams)

    def unite(self) -> Catalog:
        """Write the union of the listing and the catalog that lies in the cache now, and return it.

        Raises CacheError where the listing must not join, and where the catalog cannot be read or written.
        """
        with writable(self.folder):
            return update_catalog(self.folder, self._united)

    def unite_with_facts(self) -> Catalog:
        """The same at the end of a run, with what decoding has learned about the clips."""
        with writable(self.folder):
            return update_catalog(
                self.folder,
                lambda held: with_facts(self.folder, self._united(held), _clip_streams(self.folder)),
            )

    def _united(self, held: Catalog | None) -> Catalog:
        new = self._listed()
        if held is None:
            return _with_changes(new, self.changes)
        place = admit(held, self.listing, into=self.into)
        if place.number != self.number:  # The ids were settled for another place.
            raise CacheError(
                f"Another process has added other data to data set {held.dataset!r} just now; run the same again."
            )
        held = _with_origin(_with_moves(held, self.changes.moved), place)
        joined, notes = united(held, new, self.new_split, gone=self.changes.gone)
        self.notes += [note for note in notes if note not in self.notes]
        return _with_changes(joined, self.changes)

    def _listed(self) -> Catalog:
        states = [self.changes.state.get(clip, NOWHERE) for clip in self.listing.catalog.clip_id]
        return sourced(self.listing, states)


def _clip_streams(folder: Path) -> list[StreamName]:
    return [stream for stream in list_streams(folder) if stream.modality != "word"]


def _lacks_digests(held: Catalog, listing: Listing) -> bool:
    """Whether a clip's file may have changed and only the shards know its digest, after a run that was cut short."""
    known = held.facts["sha256"]
    return any(
        not known[row]
        and (source := listing.sources.get(clip)) is not None
        and state_of(source) != known_state(held, row)
        for row, clip in enumerate(held.clip_id)
    )


def _with_origin(held: Catalog, place: Admission) -> Catalog:
    if place.number >= len(held.sources.origins):
        return held
    return replace(held, sources=held.sources.with_origin(place.number, place.origin))


def _with_moves(held: Catalog, moved: dict[str, str]) -> Catalog:
    """The catalog in which clips that moved have their new ids, unless these are there already."""
    ids = set(held.clip_id)
    return replace(
        held, clip_id=[moved[clip] if moved.get(clip, clip) not in ids else clip for clip in held.clip_id]
    )


def _with_changes(catalog: Catalog, changes: Changes) -> Catalog:
    """The catalog that knows nothing about changed files but their digests."""
    if not changes.digest:
        return catalog
    rows = catalog.rows()
    facts = {name: values.copy() for name, values in catalog.facts.items()}
    stale = np.array([rows[clip] for clip in changes.changed if clip in rows], np.int64)
    for name, values in facts.items():
        values[stale] = FACTS[name][1]
    for clip, digest in changes.digest.items():
        if clip in rows:
            facts["sha256"][rows[clip]] = digest.encode()
    return replace(catalog, facts=facts)
