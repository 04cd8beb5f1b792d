"""What a dataset module gives the pipeline: a catalog, and the places of each clip's files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...cache.catalog import Catalog
    from ...cache.origin import Origin


@dataclass(frozen=True)
class Span:
    """A part of a file, from ``start`` up to ``end``, in seconds from the file's beginning.

    A frame belongs to it if it appears at ``start`` or later and before ``end``; a sample of sound likewise. told: the
    place where the part was asked for, such as "line 7 of 'clips.csv'".

    >>> Span(12.5, 20).fragment, Span(90).fragment
    ('#t=12.5,20', '#t=90')
    """

    start: float = 0.0
    end: float = math.inf
    told: str = ""

    @property
    def fragment(self) -> str:
        """The part as a media fragment of a URI (W3C, 2012), which follows a path."""
        return f"#t={_plain(self.start)}" + (f",{_plain(self.end)}" if self.end < math.inf else "")


def _plain(seconds: float) -> str:
    """Seconds without an exponent or needless digits, to a microsecond."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Series:
    """A time series in a file, such as that of a sensor.

    name: the series', by which encoders ask for it. rate: the steps a second; 0 where the file's own times say it.
    variable: that of a MATLAB file; "" for its first one. grid: the rows and columns of blocks over which maps [height,
    width] of each step are averaged; None where steps are no maps.
    """

    name: str
    path: Path
    rate: float = 0.0
    variable: str = ""
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Source:
    """The absolute paths of one clip's files: a video, or still images in order, separate sound, and time series.

    span: the part of the video, or of the sound where there is no video, that the clip is; None for all of it.
    frame_rate: the images a second where they are the frames of a video; 0 for stills, which tell no time.

    >>> Source(Path("a.mp4"), span=Span(1, 2)).part, Source(images=(Path("1.jpg"),), frame_rate=25.0).part
    ('#t=1,2', '#fps=25')
    """

    video: Path | None = None
    images: tuple[Path, ...] = ()
    audio: Path | None = None
    span: Span | None = None
    series: tuple[Series, ...] = ()
    frame_rate: float = 0.0

    @property
    def part(self) -> str:
        """What the clip is of its files, as it follows a path: a part, or frames at a rate; "" for the whole."""
        span = "" if self.span is None else self.span.fragment
        return span + (f"#fps={_plain(self.frame_rate)}" if self.frame_rate else "")

    def digest(self, sha256: str) -> str:
        """The hex digest of the clip, given that of its files: parts of one file differ; "" if that is ""."""
        if not self.part or not sha256:
            return sha256
        return hashlib.sha256((sha256 + self.part).encode()).hexdigest()


@dataclass(frozen=True)
class DatasetOptions:
    """The command line's options for any data set; a module refuses options that it cannot honour."""

    small: bool = False
    """Whether the data set's smallest meaningful form is taken."""
    seed: int = 0
    """The seed of the draws of clips."""
    label_set: str | None = None
    """The default label set, whose classes are split."""
    clips: int | None = None
    """Draw a benchmark of this many labelled clips."""
    per_class: int | None = None
    """Draw at most this many clips of a class."""
    split_file: Path | None = None
    """A JSON file with lists of class names under base, val and novel (else the split is drawn)."""
    split_seed: int = 0
    """The seed of a drawn class split."""
    split_sizes: tuple[int, int, int] | None = None
    """The numbers of base, val and novel classes of a drawn split, such as 16,4,12."""
    unlabelled: Path | None = None
    """A folder of further clips without labels."""
    rate: float | None = None
    """The steps a second of time series whose files have no column of times."""
    frame_rate: float | None = None
    """The frames a second of videos kept as folders of numbered images (else such folders are no clips)."""
    lists: Path | None = None
    """The published lists of a benchmark's videos: a file, or the folder that holds those of train, val and test."""
    unlabelled_clips: int | None = None
    """At most this many of the clips without labels, drawn by the seed."""
    limit: int | None = None
    """Only this many clips are taken, the first ones."""
    root: Path | None = None
    """The folder that the paths in a CSV file are relative to, and may not leave (else the file's own folder)."""
    follow_links: bool = False
    """Whether links to folders, and links that lead out of the data's folder, are followed."""


def asks_for_split(options: DatasetOptions) -> bool:
    """Whether the options ask for a class split of their own."""
    return options.split_file is not None or options.split_sizes is not None or options.split_seed != 0


@dataclass
class Listing:
    """The clips of a data set.

    catalog: all clips that exist. sources: clip id to files. missing: ids whose files were not found. warnings:
    sentences that are shown once. root: the folder that catalog paths are relative to. origin: the data that the clips
    were listed from; None stands for what --data names. partial: options may have left clips out, so that a clip that
    is not listed need not be gone. is_table: the clips are those that a table names, so that one that it names no more
    is gone even where its file is there. lists_unlabelled: the clips of ``add_unlabelled`` are all listed. streams: the
    modalities that are made unless others are asked for; none stands for the usual ones. axes: the number of axes of
    each time series, by its name.
    """

    catalog: Catalog
    sources: Mapping[str, Source]
    root: Path
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    origin: Origin | None = None
    partial: bool = False
    is_table: bool = False
    lists_unlabelled: bool = False
    streams: tuple[str, ...] = ()
    axes: dict[str, int] = field(default_factory=dict)
