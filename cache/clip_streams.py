"""The features of some clips in memory, whoever made them, and why some clips have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .schema import Provenance, StreamName
from .stream import stream_keys, stream_provenance
from .table import Stream, load_table

_ALL_IN_MEMORY = 1 << 62


@dataclass(frozen=True, kw_only=True)
class ClipStreams:
    """The features of n clips."""

    clips: Sequence[str]
    """The absolute path of each clip."""
    streams: Mapping[str, Stream]
    """The features by modality, a Stream [n, T, D] each, float32; a modality that no clip has may be missing."""
    names: Mapping[str, StreamName]
    """The stream of each modality."""
    origins: Mapping[str, Provenance]
    """The provenance of each modality's features."""
    failed: Mapping[str, str]
    """Why a clip could not be read, by its path."""
    passports: Mapping[str, Any] = field(default_factory=dict)
    """What each stream's encoder made of fsmm's built-in clips, [T][D] by clip and modality, where it is known."""


def streams_in(folder: Path, names: Mapping[str, StreamName], clips: Sequence[str]) -> dict[str, Stream]:
    """The features of clips of a data set in the cache, by modality; clips that a stream does not hold are absent.

    A modality that no clip has is left out. Raises CacheError where a stream cannot be read.
    """
    found = {}
    for modality, stream in names.items():
        held = stream_keys(folder, stream)
        if any(held.get(clip) for clip in clips):
            table = load_table(folder, stream, clips, memory=_ALL_IN_MEMORY)
            found[modality] = table.gather(torch.arange(len(clips)))
    return found


def origins_in(folder: Path, names: Mapping[str, StreamName]) -> dict[str, Provenance]:
    """The provenance of each modality's stream, for streams that hold anything. Raises CacheError as reading does."""
    found = {modality: stream_provenance(folder, stream) for modality, stream in names.items()}
    return {modality: origin for modality, origin in found.items() if origin is not None}


def stacked(arrays: Sequence[np.ndarray | None], width: int) -> Stream:
    """The Stream [n, T, D] of clips [T_i, D] that were encoded one by one; None is a clip without the modality."""
    steps = max((len(x) for x in arrays if x is not None), default=1)
    x = torch.zeros(len(arrays), steps, width)
    length = torch.tensor([0 if values is None else len(values) for values in arrays])
    for row, values in enumerate(arrays):
        if values is not None:
            x[row, : len(values)] = torch.from_numpy(values)
    return Stream(x, length > 0, length)
