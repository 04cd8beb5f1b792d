"""`fsmm cache prune` removes the clips that their data set lists no more, with their rows and their failures."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ...errors import CacheError
from ..catalog import Catalog
from ..locking import refuse_older, update_catalog
from ..rewrite import rewrite_stream
from ..schema import dataset_folders, list_streams
from ..thumbnails import forget_thumbnails
from .forget import forget_failures


@dataclass
class PruneReport:
    """The report of a pruning."""

    cache: str
    """The cache's folder."""
    removed: dict[str, list[str]] = field(default_factory=dict)
    """The ids of the clips that were removed, or would be, of each data set that had some."""
    rows: dict[str, int] = field(default_factory=dict)
    """The number of rows removed from each stream, by "dataset/stream"."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def prune(
    cache: Path,
    dataset: str | None = None,
    progress: Callable[[str], None] = lambda text: None,
    *,
    dry_run: bool = False,
) -> PruneReport:
    """Remove the clips that are listed no more from all data sets of a cache, or from one of them.

    dry_run: nothing is removed, only told. progress: called with the name of each stream.
    Raises CacheError where there is no such data set, one of an older schema, or one that another process writes.
    """
    folders = dataset_folders(cache, dataset)
    report = PruneReport(str(cache))
    for folder in folders:
        catalog = Catalog.read(folder)
        if gone := [clip for clip, is_gone in zip(catalog.clip_id, catalog.sources.gone) if is_gone]:
            refuse_older(folder, catalog)
            report.removed[folder.name] = gone
            if not dry_run:
                _remove(folder, set(gone), report, progress)
    return report


def _remove(
    folder: Path, gone: Collection[str], report: PruneReport, progress: Callable[[str], None]
) -> None:
    for stream in list_streams(folder):
        if stream.modality != "word":
            progress(f"{folder.name}/{stream}")
            count = rewrite_stream(folder, stream, lambda key, digest: None if key in gone else key)
            report.rows[f"{folder.name}/{stream}"] = count

    def without(held: Catalog | None) -> Catalog:
        if held is None:
            raise CacheError(f"Data set {folder.name!r} vanished while it was being pruned.")
        stays = [
            row for row, clip in enumerate(held.clip_id) if clip not in gone or not held.sources.gone[row]
        ]
        return held.take(np.array(stays, np.int64))

    update_catalog(folder, without)
    forget_failures(folder, lambda entry: entry.get("id") in gone)
    forget_thumbnails(folder, gone)
