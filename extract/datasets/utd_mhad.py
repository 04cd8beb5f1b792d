"""Dataset ``utd-mhad`` is UTD-MHAD: 27 actions of 8 persons with an inertial sensor, a skeleton, and videos.

--data holds the official files at any depth: ``a{action}_s{subject}_t{trial}_inertial.mat`` (variable d_iner, [n, 6],
50 steps a second), ``..._skeleton.mat`` (d_skel, [20, 3, n], 30 a second) and ``..._depth.mat`` (d_depth, [240, 320,
n], 30 a second), and the videos ``..._color`` where they are there. The class is the action, the group the subject.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from ...errors import UsageError
from .base import DatasetOptions, Listing, Series, Source
from .series_files import series_listing
from .walk import Walk, counted, some, walk

ACTIONS = (
    "Swipe left", "Swipe right", "Wave", "Clap", "Throw", "Arm cross", "Basketball shoot", "Draw X",
    "Draw circle clockwise", "Draw circle counter clockwise", "Draw triangle", "Bowling", "Boxing", "Baseball swing",
    "Tennis swing", "Arm curl", "Tennis serve", "Push", "Knock", "Catch", "Pickup and throw", "Jog", "Walk",
    "Sit to stand", "Stand to sit", "Lunge", "Squat",
)  # fmt: skip
"""The names of the actions 1 to 27."""
_GRID = (6, 8)
AXES = {"sensor": 6, "skeleton": 60, "depth": 48}
_NAME = re.compile(r"(?P<clip>a(?P<action>\d+)_s\d+_t\d+)_(?P<kind>[a-z]+)")
_SERIES = {
    "inertial": ("sensor", "d_iner", 50.0),
    "skeleton": ("skeleton", "d_skel", 30.0),
    "depth": ("depth", "d_depth", 30.0),
}
"""The series of each kind of file: its name, the variable, and the steps a second."""


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All sequences, in the order of action, subject and trial. Raises UsageError where there is none."""
    if data is None:
        raise UsageError(
            "Dataset 'utd-mhad' needs --data: the folder of its a1_s1_t1_inertial.mat and the like."
        )
    found = walk(data, follow_links=options.follow_links, frame_rate=options.frame_rate)
    clips, aside = _clips(found)
    if not clips:
        raise UsageError(
            f"No sequence of UTD-MHAD is below {str(data)!r}; its files are named such as 'a1_s1_t1_inertial.mat'."
        )
    there = {series.name for source in clips.values() for series in source.series}
    return series_listing(
        "utd-mhad",
        "action",
        clips,
        {clip: ACTIONS[_numbers(clip)[0] - 1] for clip in clips},
        ACTIONS,
        found=found,
        axes={name: axes for name, axes in AXES.items() if name in there},
        options=options,
        warnings=[f"{counted('file', aside)} of other names left aside: {some(aside)}."] if aside else [],
    )


def _clips(found: Walk) -> tuple[dict[str, Source], list[str]]:
    """The files of each sequence, and the paths of files that belong to none."""
    series: dict[str, list[Series]] = defaultdict(list)
    videos: dict[str, str] = {}
    aside = []
    for path in found.others:
        told = _named(path)
        if told is None or told["kind"] not in _SERIES or not path.lower().endswith(".mat"):
            aside.append(path)
            continue
        name, variable, rate = _SERIES[told["kind"]]
        grid = _GRID if name == "depth" else None
        series[told["clip"]].append(Series(name, found.root / path, rate, variable, grid))
    for path in found.videos:
        if (told := _named(path)) is None:
            aside.append(path)
        else:
            videos[told["clip"]] = path
    names = sorted({*series, *videos}, key=_numbers)
    return {clip: found.source(videos.get(clip), series=tuple(series.get(clip, ()))) for clip in names}, aside


def _named(path: str) -> re.Match[str] | None:
    """What the name of a file of a known action says; None for any other file."""
    told = _NAME.fullmatch(os.path.splitext(path.rpartition("/")[2])[0])
    return told if told is not None and 1 <= int(told["action"]) <= len(ACTIONS) else None


def _numbers(clip: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", clip)]
