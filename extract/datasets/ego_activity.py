"""Dataset ``ego-activity`` is the Multimodal Egocentric Activity data set: 20 activities of everyday life.

--data holds the sensor files ``act01seq01.csv`` (no header, 19 columns, 10 rows a second) at any depth, and the videos
of the same names where they are there. The class is the activity.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from ...errors import UsageError
from .base import DatasetOptions, Listing, Series
from .series_files import series_listing
from .walk import counted, some, walk

ACTIVITIES = (
    "walking", "walking upstairs", "walking downstairs", "riding elevator up", "riding elevator down",
    "riding escalator up", "riding escalator down", "sitting", "eating", "drinking", "texting", "making phone calls",
    "working at PC", "reading", "writing sentences", "organizing files", "running", "doing push-ups", "doing sit-ups",
    "cycling",
)  # fmt: skip
"""The names of the activities 1 to 20."""
AXES, RATE = 19, 10.0
_NAME = re.compile(r"act(?P<activity>\d+)seq\d+", re.IGNORECASE)


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All sequences, by name. Raises UsageError where there is none."""
    if data is None:
        raise UsageError(
            "Dataset 'ego-activity' needs --data: the folder of its act01seq01.csv and the like."
        )
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    series: dict[str, tuple[Series, ...]] = {}
    videos: dict[str, str] = {}
    label: dict[str, str] = {}
    aside = []
    for path in [*found.others, *found.videos]:
        clip, ending = os.path.splitext(path.rpartition("/")[2])
        told = _NAME.fullmatch(clip)
        is_video = path in found.videos
        if (
            told is None
            or not 1 <= int(told["activity"]) <= len(ACTIVITIES)
            or not (is_video or ending == ".csv")
        ):
            aside.append(path)
            continue
        if is_video:
            videos[clip] = path
        else:
            series[clip] = (Series("sensor", found.root / path, RATE),)
        label[clip] = ACTIVITIES[int(told["activity"]) - 1]
    if not label:
        raise UsageError(f"No sequence is below {str(data)!r}; its files are named such as 'act01seq01.csv'.")
    clips = {clip: found.source(videos.get(clip), series=series.get(clip, ())) for clip in sorted(label)}
    return series_listing(
        "ego-activity",
        "activity",
        clips,
        label,
        ACTIVITIES,
        found=found,
        axes={"sensor": AXES} if series else {},
        options=options,
        warnings=[f"{counted('file', aside)} of other names left aside: {some(aside)}."] if aside else [],
    )
