"""Folders of single frames, which stand for a video: ``class/video/img_00001.jpg`` or ``video/000001.jpg``.

Video benchmarks are often kept like this, with the frames numbered in one folder a video. They are clips where
``--frame-rate`` says how many of them a second has; flow that lies beside them (``flow_x_00001.jpg``) is not read.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

_NUMBERED = re.compile(r"(.*?)(\d+)")
_FLOW = re.compile(r"flow.*", re.IGNORECASE)


def frames_by_folder(images: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The frames of each folder that is a video, in order, by the folder's path.

    images: relative paths. A folder is one where all its images but those of flow have the same name before their
    numbers; of two images of one number the first by name counts.

    >>> frames_by_folder(["a/v/img_2.jpg", "a/v/img_10.jpg", "a/v/flow_x_2.jpg", "b/cover.jpg", "c/1.jpg", "c/x1.jpg"])
    {'a/v': ('a/v/img_2.jpg', 'a/v/img_10.jpg')}
    """
    held: dict[str, list[str]] = defaultdict(list)
    for path in sorted(images):
        folder, slash, _ = path.rpartition("/")
        if slash:
            held[folder].append(path)
    return {folder: frames for folder, paths in held.items() if (frames := _frames(paths))}


def _frames(paths: Iterable[str]) -> tuple[str, ...]:
    """The frames of one folder in the order of their numbers; none where its images are no frames of one video."""
    by_number: dict[int, str] = {}
    names = set()
    for path in paths:
        found = _NUMBERED.fullmatch(PurePosixPath(path).stem)
        if found is not None and _FLOW.fullmatch(found[1]):
            continue
        if found is None:
            return ()
        names.add(found[1])
        by_number.setdefault(int(found[2]), path)
    return tuple(by_number[number] for number in sorted(by_number)) if len(names) == 1 else ()


def advice(images: Sequence[str]) -> str:
    """A sentence for data that holds images where videos were expected; "" where these are no frames of videos."""
    folders: Mapping[str, Sequence[str]] = frames_by_folder(images)
    if not folders:
        return ""
    some = min(folders)
    return (
        f"Folders of numbered images are there, such as {some!r} with {len(folders[some])}; if they are the frames of "
        "videos, give --frame-rate, their number a second."
    )
