"""Two caches of the same clips compared: stream by stream the features, and what the difference does to accuracy.

Features are averaged over time. Of the mean features x of one cache and y of the other, y = scale x + shift is fitted
by least squares over all clips and numbers, with one scale and a shift for each number: a constant factor or offset is
harmless to most heads, what is left is not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..cache.catalog import Catalog
from ..cache.schema import StreamName, dataset_folder, list_streams, shard_paths
from ..cache.shard import read_shard
from ..cache.stream import stream_provenance
from ..episodes.protocol import Protocol
from ..errors import CacheError, FsmmError, UsageError, listed
from ..runs.job import Job, Place
from ..runs.run import run
from ..runs.spec import RunSpec
from .compare import compare

EPISODES = 2000


@dataclass(frozen=True, kw_only=True)
class StreamDifference:
    """The difference of one stream between two caches."""

    stream: str
    """The stream's name."""
    clips: int
    """The number of clips that have features in both."""
    one_sided: int
    """The number of clips that have features in one of them only."""
    cosine: float
    """The mean cosine of a clip's features, averaged over time."""
    least_cosine: float
    """The smallest cosine of a clip."""
    scale: float
    """The factor that brings the first cache's features to the second's."""
    shift: float
    """The length of the offset that is added then, in units of the mean length of the second's features."""
    left: float
    """The share of the second's variance that scale and shift leave unexplained."""
    origin: list[str]
    """What the two streams' provenances say differently."""
    accuracy: dict[str, Any] | None = None
    """The accuracies of class means on the same episodes and their paired difference; None where it was not asked."""
    note: str = ""
    """Why there is no accuracy, "" where there is."""


def cache_diff(
    first: Path, second: Path, dataset: str | None = None, *, episodes: int = EPISODES, protocol: Protocol
) -> list[StreamDifference]:
    """Compare every stream that two caches share.

    episodes: on how many the accuracies are compared; 0 leaves them out. Raises CacheError where the caches share no
    stream or no clip, UsageError for one cache given twice.
    """
    if first.resolve() == second.resolve():
        raise UsageError(f"{str(first)!r} is named twice; name two caches of the same clips.")
    folders = [dataset_folder(root, dataset) for root in (first, second)]
    if folders[0].name != folders[1].name:
        raise UsageError(
            f"The caches hold data sets of other names, {folders[0].name!r} and {folders[1].name!r}; a data set of one "
            "name in both is compared."
        )
    held = [list_streams(folder) for folder in folders]
    shared = [stream for stream in held[0] if stream in held[1]]
    if not shared:
        raise CacheError(
            f"The caches share no stream: one holds {listed(list(map(str, held[0])))}, the other "
            f"{listed(list(map(str, held[1])))}."
        )
    found = [_difference(stream, folders) for stream in shared]
    if not episodes:
        return found
    return [
        _with_accuracy(one, stream, folders, episodes=episodes, protocol=protocol)
        if stream.modality != "word"
        else one
        for one, stream in zip(found, shared)
    ]


def _difference(stream: StreamName, folders: Sequence[Path]) -> StreamDifference:
    one, other = (mean_features(folder, stream) for folder in folders)
    both = sorted(set(one) & set(other))
    if not both:
        raise CacheError(f"Stream {stream} has no clip in both caches; compare caches of the same clips.")
    x, y = (np.stack([rows[key] for key in both]) for rows in (one, other))
    origins = [stream_provenance(folder, stream) for folder in folders]
    differ = origins[0].differences(origins[1]) if origins[0] and origins[1] else []
    if x.shape != y.shape:
        raise CacheError(
            f"Stream {stream} has {x.shape[1]} numbers a step in one cache and {y.shape[1]} in the other; "
            "the two are of other encoders."
        )
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = (x * y).sum(1) / np.maximum(lengths, 1e-12)
    scale, shift, left = fitted(x, y)
    return StreamDifference(
        stream=str(stream),
        clips=len(both),
        one_sided=len(set(one) ^ set(other)),
        cosine=float(cosine.mean()),
        least_cosine=float(cosine.min()),
        scale=scale,
        shift=float(np.linalg.norm(shift) / max(np.linalg.norm(y, axis=1).mean(), 1e-12)),
        left=left,
        origin=differ,
    )


def fitted(x: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray, float]:
    """The scale, the shift [D] and the unexplained share of variance of y = scale x + shift; x, y [n, D].

    >>> x = np.array([[0.0, 1.0], [2.0, 0.0], [1.0, 5.0]])
    >>> scale, shift, left = fitted(x, 3 * x + np.array([1.0, -1.0]))
    >>> round(scale, 6), shift.round(6).tolist(), round(left, 6)
    (3.0, [1.0, -1.0], 0.0)
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    power = float((a * a).sum())
    scale = float((a * b).sum()) / power if power else 1.0
    left = float(((b - scale * a) ** 2).sum()) / max(float((b * b).sum()), 1e-12)
    return scale, mean_y - scale * mean_x, left if (b * b).sum() else 0.0


def mean_features(folder: Path, stream: StreamName) -> dict[str, np.ndarray]:
    """The features of each clip of a stream, averaged over time, float64 [D]. Raises CacheError for a damaged shard."""
    found: dict[str, np.ndarray] = {}
    for path in shard_paths(folder, stream):
        shard = read_shard(path, facts=False)
        for row in np.flatnonzero(shard.present).tolist():
            found[shard.key[row]] = shard.clip(row).astype(np.float64).mean(0)
    return found


def _with_accuracy(
    found: StreamDifference, stream: StreamName, folders: Sequence[Path], *, episodes: int, protocol: Protocol
) -> StreamDifference:
    """The difference with the accuracies of class means on the same episodes, or with a note that says why not."""
    if differ := _other_catalog(folders):
        return replace(found, note=differ)
    spec = RunSpec(method="protonet", protocol=protocol, streams=(str(stream),), words=None)
    with tempfile.TemporaryDirectory() as room:
        outs = [Path(room) / name for name in ("first", "second")]
        try:
            for folder, out in zip(folders, outs):
                place = Place(cache=folder.parent, dataset=folder.name, out=out)
                run(Job(spec=spec, place=place, episodes=episodes))
            compared = compare(outs)
        except FsmmError as error:
            return replace(found, note=f"No accuracies are compared. {error}")
    pair = compared.pairs[0]
    accuracy = {
        "first": compared.runs[0]["accuracy"],
        "second": compared.runs[1]["accuracy"],
        "difference": pair.difference,
        "clips": None if pair.clips is None else asdict(pair.clips),
        "classes": None if pair.classes is None else asdict(pair.classes),
        "episodes": compared.episodes,
    }
    return replace(found, accuracy=accuracy)


def _other_catalog(folders: Sequence[Path]) -> str:
    """The sentence that says why episodes of the two data sets differ; "" where they are the same."""
    one, other = (Catalog.read(folder) for folder in folders)
    if one.clip_id != other.clip_id:
        return "The data sets list other clips, so that their episodes differ and no accuracies are compared."
    return ""
