"""Episodes as the temporal-matching benchmark publishes them: six files an episode, of which four are read here.

``support_labels_<i>.pth`` [N K] and ``target_labels_<i>.pth`` [Q] hold the ways; ``support_frame_names_<i>.txt`` and
``target_frame_names_<i>.txt`` hold, for each video, its clips divided by ``;``, each as the names of its 16 frames
divided by ``,``: ``<video>/<frame>.jpg``, where frame 00000001 is the first. A clip that begins at frame s is step
s - 1 of the published features of its video. The two files of features repeat these features and are not needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from ..cache.exchange.video_folders import read_tensor
from ..errors import UsageError
from ..machine.files import refuse_special
from ..machine.texts import plain_text
from .episode_file import EpisodeFile

_NAMES = "support_frame_names_{}.txt"
_FRAME = re.compile(r"(?P<video>[^/,;]+)/0*(?P<frame>[1-9]\d*)\.[A-Za-z]+")


def published_episodes(
    folder: Path, most: int | None = None, progress: Callable[[int], None] = lambda done: None
) -> EpisodeFile:
    """The episodes 1, 2, ... of a folder, all or the first ``most``.

    progress: called with the number of episodes that were read. Raises UsageError where there is none, or one is not of
    the published form, CacheError for a file of labels that is no tensor.
    """
    if not (folder / _NAMES.format(1)).is_file():
        raise UsageError(
            f"There is no episode in {str(folder)!r}: the first would have the file {_NAMES.format(1)!r}."
        )
    place: dict[str, int] = {}
    read = []
    for number in _numbers(folder, most):
        read.append(_episode(folder, number, place))
        progress(len(read))
    if len({tuple(array.shape for array in one) for one in read}) > 1:
        raise UsageError(f"The episodes in {str(folder)!r} differ in way, shot, queries or steps.")
    support, query, label, support_steps, query_steps = (np.stack(arrays) for arrays in zip(*read))
    return EpisodeFile(
        clips=list(place),
        support=support,
        query=query,
        query_label=label,
        support_steps=support_steps,
        query_steps=query_steps,
    )


def _numbers(folder: Path, most: int | None) -> Iterator[int]:
    number = 1
    while (most is None or number <= most) and (folder / _NAMES.format(number)).is_file():
        yield number
        number += 1


def _episode(folder: Path, number: int, place: dict[str, int]) -> tuple[np.ndarray, ...]:
    """The clips, labels and steps of an episode, whose supports are put in the order of their ways.

    place: the place of each clip's id; ids that are new are added.
    """
    way = _labels(folder / f"support_labels_{number}.pth")
    label = _labels(folder / f"target_labels_{number}.pth")
    support, support_steps = _videos(folder / _NAMES.format(number), place)
    query, query_steps = _videos(folder / f"target_frame_names_{number}.txt", place)
    ways, shots = int(way.max(initial=0)) + 1, int((way == 0).sum())
    if len(way) != len(support) or len(label) != len(query) or np.bincount(way).tolist() != [shots] * ways:
        raise UsageError(f"Episode {number} in {str(folder)!r} has other numbers of videos than of labels.")
    order = np.argsort(way, kind="stable")
    return (
        support[order].reshape(ways, shots),
        query,
        label,
        support_steps[order].reshape(ways, shots, -1),
        query_steps,
    )


def _labels(path: Path) -> np.ndarray:
    values = read_tensor(path)
    whole = values.astype(np.int64)
    if values.ndim != 1 or not (whole == values).all() or (whole < 0).any():
        raise UsageError(f"{str(path)!r} must hold whole numbers from 0.")
    return whole


def _videos(path: Path, place: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The places int64 [V] of the videos of a file of frame names, and the steps int64 [V, S] that are taken."""
    refuse_special(path, "file of frame names")
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{str(path)!r} cannot be read ({error}).") from None
    found = [[_FRAME.match(clip) for clip in line.split(";") if clip] for line in lines]
    videos, steps = [], []
    for line, firsts in zip(lines, found):
        named = [first for first in firsts if first is not None]
        if len(named) < len(firsts) or len({first["video"] for first in named}) != 1:
            raise UsageError(
                f"{path.name!r} of {str(path.parent)!r} has a line of another form: {line[:60]!r}."
            )
        videos.append(place.setdefault(plain_text(named[0]["video"]), len(place)))
        steps.append([int(first["frame"]) - 1 for first in named])
    if len({len(each) for each in steps}) != 1:
        raise UsageError(
            f"{path.name!r} of {str(path.parent)!r} has videos with different numbers of clips, or none."
        )
    return np.array(videos, np.int64), np.array(steps, np.int64)
