"""Streams of different rates on common times: each clip's steps are resampled when they are read (`--align`).

A step between two steps of a stream is the linear mixture of both by the distance in time; a time before the first step
or after the last takes that step. What the times of a clip are is its own affair, and the same for all of its streams:

- a number N: N times, evenly from the latest first step to the earliest last step of the clip's streams (one time, or
  streams that do not overlap: the middle of these two);
- a modality or stream: the times of that stream's steps, for each clip that has it;
- ``coarsest``, and a clip that lacks the named stream: the times of the stream with the fewest steps in this clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UsageError, unknown
from .index import StreamIndex
from .schema import StreamName
from .shard import read_shard
from .times import lacking_times

COARSEST = "coarsest"
MOST_STEPS = 64


@dataclass(frozen=True)
class Alignment:
    """The times on which the steps of several streams are brought.

    onto: the number of times, 0 where a stream gives them. reference: that stream; None for the coarsest one of a clip.
    streams: all streams that are aligned, whichever of them is read.
    """

    streams: tuple[StreamName, ...]
    onto: int = 0
    reference: StreamName | None = None

    @classmethod
    def parse(cls, text: str, streams: dict[str, StreamName]) -> Alignment:
        """The alignment that ``text`` asks for, of streams by key. Raises UsageError for one that cannot be.

        >>> streams = {"frame": StreamName("frame", "net"), "audio": StreamName("audio", "yamnet")}
        >>> Alignment.parse("8", streams).onto, str(Alignment.parse("audio", streams).reference)
        (8, 'audio/yamnet')
        """
        held = tuple(streams.values())
        if text.isdecimal():
            if not 1 <= int(text) <= MOST_STEPS:
                raise UsageError(f"--align {text} gives no number of steps from 1 to {MOST_STEPS}.")
            return cls(held, onto=int(text))
        if text == COARSEST:
            return cls(held)
        names = {**{str(stream): stream for stream in held}, **streams}
        if text not in names:
            raise unknown("stream to align with", text, [*streams, COARSEST])
        return cls(held, reference=names[text])


@dataclass(frozen=True)
class Resampling:
    """The new steps of n clips: step j of a clip is (1 - weight[j]) of its step low[j], and weight[j] of the next one.

    offset: int64 [n+1]; clip i has the new steps offset[i]:offset[i+1]. low: int64, weight: float32, of all new steps.
    """

    offset: np.ndarray
    low: np.ndarray
    weight: np.ndarray

    @property
    def length(self) -> np.ndarray:
        """The number of new steps of each clip, int64 [n]."""
        return np.diff(self.offset)

    def applied(self, clip: int, x: np.ndarray) -> np.ndarray:
        """The features [M, D] of a clip at its new times, from those [T, D] that are stored."""
        part = slice(self.offset[clip], self.offset[clip + 1])
        low, weight = self.low[part], self.weight[part, None]
        high = np.minimum(low + 1, len(x) - 1)
        return (1 - weight) * x[low].astype(np.float32) + weight * x[high].astype(np.float32)


def resampling_of(
    stream: StreamName,
    alignment: Alignment,
    indices: dict[StreamName, StreamIndex],
    keys: Sequence[str],
) -> Resampling:
    """How the clips ``keys`` of one stream are resampled.

    indices: those of all aligned streams. Raises CacheError where a step of a clip in any of them has no time.
    """
    times = {other: step_times(indices[other], other, keys) for other in alignment.streams}
    parts = []
    for row in range(len(keys)):
        own = times[stream][row]
        if own is None:
            parts.append((np.zeros(0, np.int64), np.zeros(0, np.float32)))
            continue
        held = {other: found for other in times if (found := times[other][row]) is not None}
        parts.append(_mixture(own, _common_times(held, alignment)))
    offset = np.concatenate([[0], np.cumsum([len(low) for low, _ in parts])]).astype(np.int64)
    none = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    low, weight = (np.concatenate(columns) for columns in zip(none, *parts))
    return Resampling(offset, low, weight)


def step_times(index: StreamIndex, stream: StreamName, keys: Sequence[str]) -> list[np.ndarray | None]:
    """The seconds [T] of the steps of each clip of a stream; None where the clip is absent.

    Raises CacheError where a clip that is present does not know them.
    """
    found: list[np.ndarray | None] = [None] * len(keys)
    place = index.positions(keys)
    wanted = (place >= 0) & index.present
    first = np.searchsorted(index.shard, np.arange(len(index.paths)))
    lacking: list[str] = []
    for number in np.unique(index.shard[wanted]).tolist():
        shard = read_shard(index.paths[number], features=False, facts=False)
        for at in np.flatnonzero(wanted & (index.shard == number)).tolist():
            times = shard.clip_times(at - first[number])
            found[place[at]] = times
            if times is None:
                lacking.append(index.key[at])
    if lacking:
        raise lacking_times(stream, lacking)
    return found


def _common_times(held: dict[StreamName, np.ndarray], alignment: Alignment) -> np.ndarray:
    """The times of one clip, which has these streams with the times of their steps."""
    if alignment.onto:
        begin = max(float(times[0]) for times in held.values())
        end = min(float(times[-1]) for times in held.values())
        if alignment.onto == 1 or end <= begin:
            return np.full(alignment.onto, (begin + end) / 2)
        return np.linspace(begin, end, alignment.onto)
    if alignment.reference in held:
        return held[alignment.reference]
    return min(held.values(), key=len)


def _mixture(own: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower step int64 [M] and the weight float32 [M] of the step after it, for times [M] among those [T]."""
    wanted = np.clip(wanted, own[0], own[-1])
    low = np.clip(np.searchsorted(own, wanted, side="right") - 1, 0, max(len(own) - 2, 0))
    gap = own[np.minimum(low + 1, len(own) - 1)] - own[low]
    weight = np.where(gap > 0, (wanted - own[low]) / np.where(gap > 0, gap, 1), 0.0)
    return low.astype(np.int64), weight.astype(np.float32)
