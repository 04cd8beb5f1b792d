"""Episodes drawn as the temporal-matching benchmark draws them, one random clip from each equal part of a video.

Every episode takes its chance from one numpy Generator that goes through all of them, as the published code does:
classes, then for each class its videos, then for each of these its clips. The names of classes and of videos are
sorted, where the published code takes the order in which a machine lists folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from ..errors import UsageError
from .episode_file import EpisodeFile


def segment_steps(generator: np.random.Generator, length: int, count: int) -> np.ndarray:
    """The steps int64 [count] that are taken of a sequence: one at random from each of ``count`` equal parts.

    A sequence that is not longer than ``count`` is taken whole, its last step repeated, without any draw.
    """
    if length <= count:
        return np.minimum(np.arange(count), length - 1)
    borders = np.ceil(np.linspace(0, length, count + 1)).astype(np.int64)
    return np.array([generator.choice(np.arange(a, b)) for a, b in pairwise(borders)], np.int64)


def draw_with_steps(
    lengths: Mapping[str, Mapping[str, int]],
    *,
    episodes: int,
    ways: int,
    shots: int,
    queries: int,
    steps: int,
    seed: int,
) -> EpisodeFile:
    """``episodes`` episodes with the given queries a class and steps a clip.

    lengths: for each class, the number of steps of each of its videos. Raises UsageError where there are too few
    classes or videos.
    """
    classes, videos = _sorted(lengths, ways=ways, needed=shots + queries)
    place = {name: i for i, name in enumerate(name for names in videos for name in names)}
    generator = np.random.default_rng(seed)
    clip = np.zeros((episodes, ways, shots + queries), np.int64)
    taken = np.zeros((*clip.shape, steps), np.int64)
    for episode in range(episodes):
        for way, number in enumerate(generator.permutation(len(classes))[:ways]):
            names = videos[number]
            drawn = [names[i] for i in generator.permutation(len(names))[: shots + queries]]
            clip[episode, way] = [place[name] for name in drawn]
            for i, name in enumerate(drawn):
                taken[episode, way, i] = segment_steps(generator, lengths[classes[number]][name], steps)
    return EpisodeFile(
        clips=list(place),
        support=clip[:, :, :shots],
        query=clip[:, :, shots:].reshape(episodes, -1),
        query_label=np.repeat(np.arange(ways)[None], episodes, 0).repeat(queries, 1),
        support_steps=taken[:, :, :shots],
        query_steps=taken[:, :, shots:].reshape(episodes, -1, steps),
    )


def _sorted(
    lengths: Mapping[str, Mapping[str, int]], *, ways: int, needed: int
) -> tuple[list[str], list[Sequence[str]]]:
    """The sorted names of the classes, and of the videos of each. Raises UsageError where there are too few."""
    classes = sorted(lengths)
    videos: list[Sequence[str]] = [sorted(lengths[name]) for name in classes]
    if len(classes) < ways:
        raise UsageError(f"There are {len(classes)} classes; {ways}-way episodes need {ways}.")
    for name, held in zip(classes, videos):
        if len(held) < needed:
            raise UsageError(
                f"Class {name!r} has {len(held)} clips; an episode needs {needed} of a class, supports and queries."
            )
    return classes, videos
