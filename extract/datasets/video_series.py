"""Dataset ``video-series`` has one subfolder a class, whose clips are a video, a time series, or both of one name.

``run/12.mp4`` and ``run/12.csv`` are one clip. A series is a CSV or text file of numbers, with a header or without; a
.npy file [steps, axes]; or a .mat file with one variable. Its column ``time`` in seconds, or --rate, says when its
steps were taken.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import DecodeError, UsageError
from ...machine.texts import composed, is_unlabelled
from ..decoding.series import ENDINGS, read_series
from .base import DatasetOptions, Listing, Series
from .common import dataset_name
from .series_files import series_listing
from .walk import counted, some, walk


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All clips: a clip's id is its relative path without ending, its class the first part of that path.

    The first series that can be read says how many axes those of the data set have. Raises UsageError where there is no
    clip, or no series can be read.
    """
    if data is None:
        raise UsageError("Dataset 'video-series' needs --data: a folder with one subfolder a class.")
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    videos = {path if path in found.frames else os.path.splitext(path)[0]: path for path in found.videos}
    series = {
        os.path.splitext(path)[0]: Series("sensor", found.root / path, options.rate or 0.0)
        for path in found.others
        if path.lower().endswith(ENDINGS)
    }
    names = sorted(name for name in {*videos, *series} if "/" in name)
    if not names:
        raise UsageError(
            f"No clip was found in {str(data)!r}; put each class's files into a subfolder of its own, such as "
            "<data>/running/1.mp4 and <data>/running/1.csv."
        )
    clips = {
        name: found.source(videos.get(name), series=(series[name],) if name in series else ())
        for name in names
    }
    label = {name: composed(name.partition("/")[0]) for name in names}
    aside = [path for path in found.others if not path.lower().endswith(ENDINGS) or "/" not in path]
    return series_listing(
        dataset_name(data),
        "class",
        clips,
        label,
        sorted({name for name in label.values() if not is_unlabelled(name)}),
        found=found,
        axes={"sensor": _axes([series[name] for name in names if name in series])},
        options=options,
        warnings=[f"{counted('file', aside)} of other kinds or of no class left aside: {some(aside)}."]
        if aside
        else [],
    )


def _axes(series: list[Series]) -> int:
    """The number of axes of the first series that can be read; 0 where there is no series."""
    trouble: DecodeError | None = None
    for one in series:
        try:
            return int(read_series(one)[0].shape[1])
        except DecodeError as error:
            trouble = trouble or error
    if trouble is not None:
        raise UsageError(f"None of the {len(series)} time series can be read: {trouble}")
    return 0
