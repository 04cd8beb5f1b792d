"""The listing that data sets of time series share: clips with a video, series, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ...cache.catalog import UNLABELLED, Catalog, LabelSet
from ...machine.texts import plain_text
from .base import DatasetOptions, Listing, Source
from .common import finish
from .walk import Walk


def series_listing(
    name: str,
    label_set: str,
    clips: Mapping[str, Source],
    labels: Mapping[str, str],
    class_names: Sequence[str],
    *,
    found: Walk,
    axes: Mapping[str, int],
    options: DatasetOptions,
    warnings: Sequence[str] = (),
) -> Listing:
    """The listing of clips with their class; axes: the number of axes of each series, by its name.

    The streams that are made unless others are asked for are those that the clips have something for.
    """
    ids = list(clips)
    index = {class_name: i for i, class_name in enumerate(class_names)}
    label = np.array([index.get(labels.get(clip, ""), UNLABELLED) for clip in ids], np.int32)
    catalog = Catalog(
        dataset=name,
        clip_id=[plain_text(clip) for clip in ids],
        label_sets={label_set: LabelSet(list(class_names), label)},
        default_label_set=label_set,
        path=[plain_text(_path_of(clips[clip], found.root)) for clip in ids],
    )
    sources = {plain_text(clip): source for clip, source in clips.items()}
    listing = Listing(
        catalog=catalog,
        sources=sources,
        root=found.root,
        warnings=[*found.warnings(), *warnings],
        streams=_usual_streams(clips, axes),
        axes=dict(axes),
    )
    return finish(listing, options)


def _path_of(source: Source, root: Path) -> str:
    """The path below the root of a clip's video, or of the folder of its frames, or of its first series."""
    path = source.video or (source.images[0].parent if source.images else source.series[0].path)
    return path.relative_to(root).as_posix()


def _usual_streams(clips: Mapping[str, Source], axes: Mapping[str, int]) -> tuple[str, ...]:
    seen = (
        ("frame", "flow", "audio") if any(source.video or source.images for source in clips.values()) else ()
    )
    return (*seen, *(name for name in axes if axes[name]), "word")
