"""Near-duplicates of clips, found from the streams that a cache holds: one source, re-encoded or cut.

Each stream is whitened over the whole data set (the mean is taken off, and the strongest directions get one variance),
so that what all clips share counts for nothing. Two clips are as alike as the steps of one are to their best matches
among the steps of the other, by cosine, averaged; the better of the two directions counts, so that a still or a part of
a clip is as alike to it as a copy. Where many clips look alike (one scene, one class), likeness tells nothing: what
counts is how much more alike two clips are than each of them is to the clips around it, beyond the few that may be
copies. Clips are duplicates where one stream says so, for a copy may have lost the other modality or have another one;
or where their files have the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CacheError, UsageError, listed, unknown
from .catalog import Catalog
from .schema import HASH, StreamName, list_streams, shard_paths
from .shard import read_shard

THRESHOLDS: Mapping[str, float] = {"frame": 0.3, "audio": 0.35, HASH: 0.35}
"""The least margin of duplicates, for the streams of each modality that is looked at unless others are named."""
LEAST_CLIPS = 32
"""The clips that a stream must have: in the few directions of fewer clips, any two clips may look alike."""
VIEWS: Mapping[str, int] = {HASH: 3}
"""The views that a modality's features describe one after the other, the first of which is the whole picture."""
SAME_FILE = "file"
_DIRECTIONS = 64  # of a whitened stream
_STEPS = 8  # of a clip that are compared; longer clips are averaged down
_CANDIDATES = 40  # nearest clips, by their means, whose steps are compared
_MOST = 24  # copies of a clip; the candidates that follow are the clips around it
_AROUND = 4  # clips around a clip
_LEAST_LIKENESS = 0.6  # without which no margin counts
_BLOCK = 128
_SAMPLE = 50_000  # steps from which the directions are learned


@dataclass(frozen=True)
class Likeness:
    """Two clips that are near-duplicates."""

    first: str
    """The id of the clip that comes first in the catalog."""
    second: str
    """The id of the other."""
    by: str
    """The stream that says so most clearly, or "file" where the files have the same bytes."""
    likeness: float
    """How much more alike they are by that stream than each is to the clips around it; 1 for the same file."""


@dataclass(frozen=True)
class StreamSteps:
    """A stream of n clips, whitened."""

    steps: np.ndarray
    """float32 [V, n, T, K], the directions of the steps in each view, of length one; zeros where a step is absent."""
    valid: np.ndarray
    """bool [n, T], whether each step is there."""
    mean: np.ndarray
    """float32 [V, n, K], the mean of the steps of each clip, of length one; zeros for a clip without features."""


def near_duplicates(
    folder: Path,
    catalog: Catalog,
    thresholds: Mapping[str, float] | None = None,
    *,
    left_out: list[str] | None = None,
) -> list[Likeness]:
    """The near-duplicates of a data set, each pair once, in the order of the catalog.

    thresholds: the least margin by stream, or by modality for all its streams; None takes THRESHOLDS, and leaves out
    streams of fewer than LEAST_CLIPS clips, whose names are appended to ``left_out``. Raises UsageError for one that no
    stream has and for values outside 0 to 1, CacheError where no stream can tell duplicates and where a named one has
    too few clips, and for a damaged shard.
    """
    chosen = _chosen(folder, THRESHOLDS if thresholds is None else thresholds, is_default=thresholds is None)
    found: dict[tuple[int, int], tuple[float, str]] = dict.fromkeys(_same_files(catalog), (1.0, SAME_FILE))
    few = []
    for stream, least in chosen.items():
        clips = clip_features(folder, stream, catalog.clip_id)
        if (count := sum(clip is not None for clip in clips)) < LEAST_CLIPS:
            few.append(f"{stream} ({count:,} clips)")
            continue
        steps = whitened(clips, VIEWS.get(stream.modality, 1))
        for i, j, margin in alike(steps, least):
            if margin > found.get((i, j), (0.0, ""))[0]:
                found[i, j] = (margin, str(stream))
    if few and (thresholds is not None or len(few) == len(chosen)):
        raise CacheError(
            f"Near-duplicates can be told from {LEAST_CLIPS} clips on, which {listed(few)} does not have; name other "
            "streams with --threshold."
        )
    if left_out is not None:
        left_out += few
    ids = catalog.clip_id
    return [Likeness(ids[i], ids[j], by, value) for (i, j), (value, by) in sorted(found.items())]


def _chosen(folder: Path, thresholds: Mapping[str, float], *, is_default: bool) -> dict[StreamName, float]:
    """The least likeness of each stream that is looked at."""
    held = [stream for stream in list_streams(folder) if stream.modality != "word"]
    for name, least in thresholds.items():
        if not 0 < least <= 1:
            raise UsageError(f"The threshold of {name!r} is {least:g}; it must lie above 0 and be 1 at most.")
        if not is_default and name not in {part for s in held for part in (str(s), s.modality)}:
            raise unknown("stream", name, map(str, held))
    chosen = {
        stream: thresholds[name]
        for stream in held
        for name in (stream.modality, str(stream))
        if name in thresholds
    }
    if not chosen:
        raise CacheError(
            f"Data set {folder.name!r} has no {' or '.join(THRESHOLDS)} stream to tell duplicates by (it holds "
            f"{listed(list(map(str, held)))}); name one by --threshold STREAM=0.3."
        )
    return chosen


def _same_files(catalog: Catalog) -> Iterator[tuple[int, int]]:
    """The pairs of rows of clips whose files have the same bytes; each row with the first of its kind."""
    first: dict[bytes, int] = {}
    for row, digest in enumerate(catalog.facts["sha256"].tolist()):
        if digest and first.setdefault(digest, row) != row:
            yield first[digest], row


def clip_features(folder: Path, stream: StreamName, ids: Sequence[str]) -> list[np.ndarray | None]:
    """The features float32 [T, D] of each clip, averaged to few steps; None where there are none.

    Raises CacheError for a damaged shard.
    """
    place = {clip: row for row, clip in enumerate(ids)}
    found: list[np.ndarray | None] = [None] * len(ids)
    for path in shard_paths(folder, stream):
        shard = read_shard(path, facts=False)
        for row in np.flatnonzero(shard.present).tolist():
            if shard.key[row] in place:
                steps = shard.clip(row).astype(np.float32)
                parts = np.array_split(steps, min(_STEPS, len(steps)))
                found[place[shard.key[row]]] = np.stack([part.mean(0) for part in parts])
    return found


def whitened(clips: Sequence[np.ndarray | None], views: int = 1) -> StreamSteps:
    """The clips of a stream in its strongest directions, each of which has variance one over all steps.

    views: the number of equal parts of a feature that describe one view each; the directions are those of the first.
    """
    held = [(row, clip) for row, clip in enumerate(clips) if clip is not None]
    steps = max((len(clip) for _, clip in held), default=1)
    valid = np.zeros((len(clips), steps), bool)
    if not held:
        return StreamSteps(
            np.zeros((views, len(clips), steps, 1), np.float32),
            valid,
            np.zeros((views, len(clips), 1), np.float32),
        )
    rows = np.concatenate([clip for _, clip in held])
    parts = np.split(rows, views, axis=1)
    sample = parts[0][:: max(1, len(rows) // _SAMPLE)].astype(np.float64)
    centre = sample.mean(0)
    values, vectors = np.linalg.eigh(np.cov((sample - centre).T).reshape(sample.shape[1], sample.shape[1]))
    # Directions beyond half the number of clips would tell any two clips apart, copies included.
    most = max(1, min(_DIRECTIONS, len(held) // 2, len(values)))
    keep = np.argsort(values)[::-1][:most]
    scale = 1 / np.sqrt(values[keep] + 0.1 * values[keep].mean() + 1e-12)
    out = np.zeros((views, len(clips), steps, most), np.float32)
    for row, clip in held:
        valid[row, : len(clip)] = True
    for view, part in enumerate(parts):
        # The mask lists steps clip by clip, as ``rows`` does.
        out[view][valid] = (part - centre) @ (vectors[:, keep] * scale)
    mean = out.sum(2) / np.maximum(valid.sum(1), 1)[:, None]
    return StreamSteps(unit(out), valid, unit(mean))


def unit(x: np.ndarray) -> np.ndarray:
    """The vectors of the last axis at length one; zeros stay zeros."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


def alike(stream: StreamSteps, least: float) -> list[tuple[int, int, float]]:
    """The pairs i < j of clips with at least this margin, and their margins; only a clip's nearest are looked at.

    The margin is their likeness minus the mean of what both are to the clips around them: to the candidates that follow
    the most alike ones, of which copies may be.
    """
    likeness, around = _nearest(stream)
    found = []
    for (i, j), value in likeness.items():
        margin = value - (around[i] + around[j]) / 2
        if margin >= least and value >= _LEAST_LIKENESS:
            found.append((i, j, float(margin)))
    return found


def _nearest(stream: StreamSteps) -> tuple[dict[tuple[int, int], float], np.ndarray]:
    """The likeness of each clip to its nearest ones, as pairs i < j, and how alike the clips around it are, [n]."""
    n = stream.mean.shape[1]
    there: np.ndarray = np.asarray(stream.valid.any(1))
    found: dict[tuple[int, int], float] = {}
    around = np.zeros(n)
    for start in range(0, n if n > 1 else 0, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        near = _by_means(stream, block)
        near[:, ~there] = -np.inf
        near[np.arange(near.shape[0]), np.arange(block.start, block.stop)] = -np.inf
        count = min(_CANDIDATES, n - 1)
        nearest = np.argpartition(-near, count - 1, axis=1)[:, :count]
        for offset in np.flatnonzero(there[block]).tolist():
            i = start + offset
            others = nearest[offset][np.isfinite(near[offset, nearest[offset]])]
            likeness = likeness_of(stream, i, others)
            first = min(_MOST, len(others) - 1)
            around[i] = np.sort(likeness)[::-1][first : first + _AROUND].mean()
            for j, value in zip(others.tolist(), likeness.tolist()):
                if value >= _LEAST_LIKENESS:
                    pair = (min(i, j), max(i, j))
                    found[pair] = max(value, found.get(pair, value))
    return found, around


def _by_means(stream: StreamSteps, block: slice) -> np.ndarray:
    """The cosines [m, n] of the means of a block of clips and all clips, the best of the views of either."""
    best = stream.mean[0][block] @ stream.mean[0].T
    for mean in stream.mean[1:]:
        np.maximum(best, stream.mean[0][block] @ mean.T, out=best)
        np.maximum(best, mean[block] @ stream.mean[0].T, out=best)
    return np.asarray(best)


def likeness_of(stream: StreamSteps, clip: int, others: np.ndarray) -> np.ndarray:
    """The likeness [m] of a clip to the clips ``others`` [m], in -1 to 1: whole to whole, or whole to a part."""
    valid, mine = stream.valid[others], stream.valid[clip]
    best = np.full(len(others), -1.0)
    for view in range(len(stream.steps)):
        for one, other in {(0, view), (view, 0)}:
            cosine = np.einsum("tk,msk->mts", stream.steps[one][clip][mine], stream.steps[other][others])
            cosine = np.where(valid[:, None], cosine, -1.0)
            forth = cosine.max(2).mean(1)
            back = np.where(valid, cosine.max(1), 0.0).sum(1) / np.maximum(valid.sum(1), 1)
            best = np.maximum(best, np.maximum(forth, back))
    return best
