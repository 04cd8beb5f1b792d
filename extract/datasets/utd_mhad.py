"""Dataset ``utd-mhad`` is UTD-MHAD: 27 actions of 8 persons with an inertial sensor, a skeleton, and videos.

--data holds the official files at any depth: ``a{action}_s{subject}_t{trial}_inertial.mat`` (variable d_iner, [n, 6],
50 steps a second) and ``..._skeleton.mat`` (d_skel, [20, 3, n], 30 a second), and the videos ``..._color`` where they
are there. The class is the action, the group the subject.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from ...errors import UsageError
from .base import DatasetOptions, Listing, Series, Source
from .series_files import series_listing
from .walk import counted, some, walk

ACTIONS = (
    "Swipe left", "Swipe right", "Wave", "Clap", "Throw", "Arm cross", "Basketball shoot", "Draw X",
    "Draw circle clockwise", "Draw circle counter clockwise", "Draw triangle", "Bowling", "Boxing", "Baseball swing",
    "Tennis swing", "Arm curl", "Tennis serve", "Push", "Knock", "Catch", "Pickup and throw", "Jog", "Walk",
    "Sit to stand", "Stand to sit", "Lunge", "Squat",
)  # fmt: skip
"""The names of the actions 1 to 27."""
AXES = {"sensor": 6, "skeleton": 60}
_NAME = re.compile(r"(?P<clip>a(?P<action>\d+)_s\d+_t\d+)_(?P<kind>[a-z]+)")
_SERIES = {"inertial": ("sensor", "d_iner", 50.0), "skeleton": ("skeleton", "d_skel", 30.0)}
"""The series of each kind of file: its name, the variable, and the steps a second."""


def listing(data: Path | None, options: DatasetOptions) -> Listing:
    """All sequences, in the order of action, subject and trial. Raises UsageError where there is none."""
    if data is None:
        raise UsageError(
            "Dataset 'utd-mhad' needs --data: the folder of its a1_s1_t1_inertial.mat and the like."
        )
    found = walk(data, follow_links=options.follow_links)
    series: dict[str, dict[str, Series]] = defaultdict(dict)
    videos: dict[str, Path] = {}
    label: dict[str, str] = {}
    aside = []
    for path in [*found.others, *found.videos]:
        told = _NAME.fullmatch(os.path.splitext(path.rpartition("/")[2])[0])
        if told is None or not 1 <= int(told["action"]) <= len(ACTIONS):
            aside.append(path)
            continue
        if path in found.videos:
            videos[told["clip"]] = found.root / path
        elif told["kind"] in _SERIES and path.lower().endswith(".mat"):
            name, variable, rate = _SERIES[told["kind"]]
            series[told["clip"]][name] = Series(name, found.root / path, rate, variable)
        else:  # Depth maps come in by a mapping of `fsmm cache import`.
            continue
        label[told["clip"]] = ACTIONS[int(told["action"]) - 1]
    if not label:
        raise UsageError(
            f"No sequence of UTD-MHAD is below {str(data)!r}; its files are named such as 'a1_s1_t1_inertial.mat'."
        )
    clips = {
        clip: Source(
            video=videos.get(clip), series=tuple(series[clip][name] for name in sorted(series[clip]))
        )
        for clip in sorted(label, key=_numbers)
    }
    return series_listing(
        "utd-mhad",
        "action",
        clips,
        label,
        ACTIONS,
        found=found,
        axes={name: AXES[name] for name in AXES if any(name in held for held in series.values())},
        options=options,
        warnings=[f"{counted('file', aside)} of other names left aside: {some(aside)}."] if aside else [],
    )


def _numbers(clip: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", clip)]
