"""A user's own clips by their paths, wherever they lie: one data set of the cache holds all of them.

A clip's id is its absolute path, so that a clip which is an example today and a question tomorrow is decoded once. The
data set has no labels: these belong to the models.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.catalog import UNLABELLED, Catalog, LabelSet
from ..cache.clip_streams import ClipStreams, origins_in, streams_in
from ..cache.origin import Origin
from ..cache.schema import OWN_CLIPS, StreamName, default_cache
from ..cache.shard import read_shard
from ..errors import UsageError
from ..machine.texts import plain_text, read_csv
from .choose import choose_streams
from .datasets import load
from .datasets.base import DatasetOptions, Listing, Source
from .datasets.folder import clips_below
from .datasets.walk import SOUND, walk
from .label_studio import exported_labels
from .passport import passport_path, rows_of
from .pipeline.failures import NO_FAILURE, FailureLog
from .request import Request
from .run import carry_out

USUAL = ("frame", "flow", "audio")
"""The streams that are made where none are named."""


@dataclass(frozen=True, kw_only=True)
class OwnClips:
    """Clips by their paths, with labels where a folder or a table gave them."""

    sources: Mapping[str, Source]
    """The files of each clip, by its absolute path."""
    labels: Mapping[str, str]
    """The class of each labelled clip."""
    unreadable: Mapping[str, str]
    """Why a listed clip has no file."""
    warnings: Sequence[str] = ()
    """Sentences about what was left aside."""

    @classmethod
    def labelled(cls, place: Path) -> OwnClips:
        """The labelled clips of a folder with one subfolder a class, of a CSV file, or of an export of Label Studio.

        A CSV file has a column ``path`` and one of labels; clips without a label are left out. Raises UsageError where
        there is no clip, or no label.
        """
        is_table = place.suffix.lower() == ".csv"
        if not place.exists():
            raise UsageError(
                f"The examples {str(place)!r} do not exist; give a folder with one subfolder a class, or a CSV file."
            )
        if place.suffix.lower() == ".json":
            return cls._exported(place)
        options = (
            DatasetOptions(root=Path("/")) if is_table and _names_whole_paths(place) else DatasetOptions()
        )
        listing = load("csv" if is_table else "folder", place, options)
        catalog, labels = listing.catalog, listing.catalog.labels()
        if labels.multi:
            raise UsageError(f"A clip of {str(place)!r} has several classes; a classifier needs one a clip.")
        index = dict(zip(catalog.clip_id, labels.label.tolist()))
        named = {clip: _absolute(source) for clip, source in listing.sources.items()}
        kept = [clip for clip in catalog.clip_id if index[clip] != UNLABELLED]
        if not kept:
            raise UsageError(
                f"No clip of {str(place)!r} has a class; name it in a column 'label', or put each class's videos into "
                "a folder of its own."
            )
        return cls(
            sources={named[clip]: listing.sources[clip] for clip in kept},
            labels={named[clip]: labels.class_names[index[clip]] for clip in kept},
            unreadable=dict.fromkeys(listing.missing, "the file does not exist"),
            warnings=tuple(listing.warnings),
        )

    @classmethod
    def _exported(cls, file: Path) -> OwnClips:
        labels = exported_labels(file)
        if not labels:
            raise UsageError(f"No task of {str(file)!r} has a label.")
        there = {path: Path(path) for path in labels if Path(path).is_file()}
        sources = {_absolute(_file(path)): _file(path) for path in there.values()}
        return cls(
            sources=sources,
            labels={_absolute(_file(place)): labels[path] for path, place in there.items()},
            unreadable=dict.fromkeys(labels.keys() - there.keys(), "the file does not exist"),
        )

    @classmethod
    def at(cls, places: Sequence[Path]) -> OwnClips:
        """The clips at these paths: files, and all clips below folders. Raises UsageError where there is none."""
        sources: dict[str, Source] = {}
        for place in places:
            if not place.exists():
                raise UsageError(f"There is no clip or folder at {str(place)!r}; check the path.")
            found = clips_below(walk(place))[0].values() if place.is_dir() else [_file(place)]
            sources |= {_absolute(source): source for source in found}
        if not sources:
            raise UsageError(
                f"No clip was found in {', '.join(repr(str(place)) for place in places)}; give videos, sounds, or "
                "folders with some."
            )
        return cls(sources=sources, labels={}, unreadable={})


class CachedReader:
    """Makes the features of clips through the cache: what it holds already is not decoded again.

    Raises as an extraction does. Calls from several threads take turns.
    """

    def __init__(
        self,
        streams: Sequence[str] | None = None,
        *,
        cache: Path | None = None,
        device: str = "auto",
        workers: int | None = None,
        quiet: bool = False,
    ) -> None:
        """``streams``: modalities or modality/encoder; None for frame, flow and audio."""
        self.names = chosen_streams(streams)
        self._folder = (cache or default_cache()) / OWN_CLIPS
        self._request = Request(
            dataset=OWN_CLIPS,
            cache=cache,
            streams=tuple(map(str, self.names.values())),
            device=device,
            workers=workers,
            name=OWN_CLIPS,
        )
        self._quiet = quiet
        self._turn = threading.Lock()

    def read(self, clips: OwnClips) -> ClipStreams:
        """The features of clips, in the order of their sources."""
        with self._turn:
            carry_out(self._request, quiet=self._quiet, listing=_listing(clips))
            order = list(clips.sources)
            return ClipStreams(
                clips=order,
                streams=streams_in(self._folder, self.names, order),
                names=self.names,
                origins=origins_in(self._folder, self.names),
                failed=_failures(self._folder, clips),
                passports=_passports(self._folder, self.names),
            )


def chosen_streams(streams: Sequence[str] | None) -> dict[str, StreamName]:
    """The stream of each modality. Raises UsageError for an unknown one, and for two of one modality."""
    from .encoders import encoders

    found: dict[str, StreamName] = {}
    for stream in choose_streams(list(streams or USUAL), None):
        if stream.modality == "word":
            raise UsageError(
                "A classifier of your own clips takes no word stream; leave it out of --streams."
            )
        if encoders()[stream.encoder].target.startswith("sensor:"):
            raise UsageError(
                f"Your own clips have no time series; leave {stream.modality!r} out of --streams."
            )
        if stream.modality in found:
            raise UsageError(
                f"A classifier takes one stream a modality; choose between {found[stream.modality]} and {stream}."
            )
        found[stream.modality] = stream
    return found


def _passports(folder: Path, names: Mapping[str, StreamName]) -> dict[str, Any]:
    """The passport of each stream that has one, by modality."""
    paths = {modality: passport_path(folder, stream) for modality, stream in names.items()}
    return {modality: rows_of(read_shard(path)) for modality, path in paths.items() if path.is_file()}


def _listing(clips: OwnClips) -> Listing:
    ids = list(clips.sources)
    catalog = Catalog(
        dataset=OWN_CLIPS,
        clip_id=ids,
        label_sets={"class": LabelSet([], np.full(len(ids), UNLABELLED))},
        default_label_set="class",
        path=[clip.partition("#t=")[0].lstrip("/") for clip in ids],
    )
    return Listing(catalog, clips.sources, Path("/"), origin=Origin("own clips"), partial=True)


def _failures(folder: Path, clips: OwnClips) -> dict[str, str]:
    """Why clips could not be read at all, by path."""
    found = {
        clip: line.reason
        for (clip, stream), line in FailureLog(folder).read().items()
        if clip in clips.sources and not stream and line.stage not in NO_FAILURE
    }
    return {**found, **clips.unreadable}


def _names_whole_paths(table: Path) -> bool:
    """Whether the first row of a CSV file names its clip by an absolute path, as the files that fsmm writes do."""
    found = read_csv(table)
    column = next((i for i, name in enumerate(found.columns) if name.strip().lower() == "path"), None)
    first = next((cells for _, cells in found.rows), None)
    return column is not None and first is not None and os.path.isabs(first[column])


def _file(place: Path) -> Source:
    path = Path(os.path.abspath(place))
    return Source(audio=path) if path.suffix.lower().lstrip(".") in SOUND else Source(video=path)


def _absolute(source: Source) -> str:
    """The absolute path of a clip's main file, with the part of it that the clip is."""
    path = source.video or (source.images[0] if source.images else source.audio)
    assert path is not None, "a clip has a file"
    return plain_text(os.path.abspath(path)) + source.part
