"""What a dataset module gives the pipeline: a catalog, and the places of each clip's files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...cache.catalog import Catalog
    from ...cache.origin import Origin


@dataclass(frozen=True)
class Source:
    """The absolute paths of one clip's files: a video, or still images in order, and separate sound if it has any."""

    video: Path | None = None
    images: tuple[Path, ...] = ()
    audio: Path | None = None


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
    limit: int | None = None
    """Only this many clips are taken, the first ones."""


def asks_for_split(options: DatasetOptions) -> bool:
    """Whether the options ask for a class split of their own."""
    return options.split_file is not None or options.split_sizes is not None or options.split_seed != 0


@dataclass
class Listing:
    """The clips of a data set.

    catalog: all clips that exist. sources: clip id to files. missing: ids whose files were not found. warnings:
    sentences that are shown once. root: the folder that catalog paths are relative to. origin: the data that the clips
    were listed from; None stands for what --data names. partial: options left clips out, so that a clip that is not
    listed need not be gone. is_table: the clips are those that a table names, so that one that it names no more is gone
    even where its file is there. lists_unlabelled: the clips without labels of ``add_unlabelled`` are all listed.
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
