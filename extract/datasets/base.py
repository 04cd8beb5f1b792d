"""What a dataset module gives the pipeline: a catalog, and where each clip's files lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.catalog import Catalog


@dataclass(frozen=True)
class Source:
    """The files of one clip, absolute: a video, or still images in order, and sound of its own if it is elsewhere."""

    video: Path | None = None
    images: tuple[Path, ...] = ()
    audio: Path | None = None


@dataclass(frozen=True)
class DatasetOptions:
    """What the command line may ask of any dataset; a module refuses what it cannot honour.

    small: the module's smallest meaningful form (tests). seed: for every draw below.
    label_set: the default label set, whose classes are split. clips / per_class: draw a smaller benchmark.
    split_file: JSON {"base": [...], "val": [...], "novel": [...]} of class names; else drawn by split_seed.
    split_sizes: (base, val, novel) counts for a drawn split. unlabelled: a folder of further videos without labels.
    """

    small: bool = False
    seed: int = 0
    label_set: str | None = None
    clips: int | None = None
    per_class: int | None = None
    split_file: Path | None = None
    split_seed: int = 0
    split_sizes: tuple[int, int, int] | None = None
    unlabelled: Path | None = None
    limit: int | None = None


@dataclass
class Listing:
    """catalog: all clips that exist. sources: clip id to files. missing: ids whose files were not found.

    warnings: one sentence each, shown once. root: the folder that catalog paths are relative to.
    """

    catalog: Catalog
    sources: Mapping[str, Source]
    root: Path
    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
