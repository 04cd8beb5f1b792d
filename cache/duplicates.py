"""Near-duplicates of clips, found from the streams that a cache holds: one source, re-encoded or cut.

Each stream is whitened over the whole data set (the mean is taken off, and the strongest directions get one variance),
so that what all clips share counts for nothing. Two clips are as alike as the steps of one are to their best matches
among the steps of the other, by cosine, averaged; the better of the two directions counts, so that a still or a part of
a clip is as alike to it as a copy. Clips are duplicates where one stream says so, for a copy may have lost the other
modality or have another one; or where their files have the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import CacheError, UsageError, listed, unknown
from .catalog import Catalog
from .locking import update_catalog
from .schema import StreamName, list_streams, shard_paths
from .shard import read_shard

THRESHOLDS: Mapping[str, float] = {"frame": 0.7, "audio": 0.9}
"""The least likeness of duplicates, for the streams of each modality that is looked at unless others are named."""
LEAST_CLIPS = 32
"""The clips that a stream must have: in the few directions of fewer clips, any two clips may look alike."""
SAME_FILE = "file"
_DIRECTIONS = 64  # of a whitened stream
_STEPS = 8  # of a clip that are compared; longer clips are averaged down
_CANDIDATES = 40  # nearest clips, by their means, whose steps are compared
_MOST = 24  # copies of a clip; a clip that is alike to more shows something common
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
    """The likeness by that stream, 1 for the same file."""


@dataclass(frozen=True)
class StreamSteps:
    """A stream of n clips, whitened."""

    steps: np.ndarray
    """float32 [n, T, K], the directions of the steps, each of length one; zeros where a step is not there."""
    valid: np.ndarray
    """bool [n, T], whether each step is there."""
    mean: np.ndarray
    """float32 [n, K], the mean of the steps of each clip, of length one; zeros for a clip without features."""


def near_duplicates(
    folder: Path, catalog: Catalog, thresholds: Mapping[str, float] | None = None
) -> list[Likeness]:
    """The near-duplicates of a data set, each pair once, in the order of the catalog.

    thresholds: the least likeness by stream, or by modality for all its streams; None takes THRESHOLDS. Raises
    UsageError for one that no stream has and for values outside 0 to 1, CacheError where no stream can tell duplicates
    and where one has fewer than LEAST_CLIPS clips, and for a damaged shard.
    """
    chosen = _chosen(folder, THRESHOLDS if thresholds is None else thresholds, is_default=thresholds is None)
    found: dict[tuple[int, int], tuple[float, str]] = dict.fromkeys(_same_files(catalog), (1.0, SAME_FILE))
    for stream, least in chosen.items():
        clips = clip_features(folder, stream, catalog.clip_id)
        if (count := sum(clip is not None for clip in clips)) < LEAST_CLIPS:
            raise CacheError(
                f"Stream {stream} has features of {count} clips; near-duplicates can be told from {LEAST_CLIPS} on. "
                "Leave it out by naming other streams with --threshold."
            )
        steps = whitened(clips)
        for i, j, likeness in alike(steps, least):
            if likeness > found.get((i, j), (0.0, ""))[0]:
                found[i, j] = (likeness, str(stream))
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
            f"Data set {folder.name!r} has no frame or audio stream to tell duplicates by (it holds "
            f"{listed(list(map(str, held)))}); name one by --threshold STREAM=0.8."
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


def whitened(clips: Sequence[np.ndarray | None]) -> StreamSteps:
    """The clips of a stream in its strongest directions, each of which has variance one over all steps."""
    held = [(row, clip) for row, clip in enumerate(clips) if clip is not None]
    steps = max((len(clip) for _, clip in held), default=1)
    valid = np.zeros((len(clips), steps), bool)
    if not held:
        return StreamSteps(
            np.zeros((len(clips), steps, 1), np.float32), valid, np.zeros((len(clips), 1), np.float32)
        )
    rows = np.concatenate([clip for _, clip in held])
    sample = rows[:: max(1, len(rows) // _SAMPLE)].astype(np.float64)
    centre = sample.mean(0)
    values, vectors = np.linalg.eigh(np.cov((sample - centre).T).reshape(rows.shape[1], rows.shape[1]))
    # Directions beyond half the number of clips would tell any two clips apart, copies included.
    most = max(1, min(_DIRECTIONS, len(held) // 2, len(values)))
    keep = np.argsort(values)[::-1][:most]
    scale = 1 / np.sqrt(values[keep] + 0.1 * values[keep].mean() + 1e-12)
    directions = ((rows - centre) @ (vectors[:, keep] * scale)).astype(np.float32)
    out = np.zeros((len(clips), steps, most), np.float32)
    start = 0
    for row, clip in held:
        valid[row, : len(clip)] = True
        out[row, : len(clip)] = directions[start : start + len(clip)]
        start += len(clip)
    mean = out.sum(1) / np.maximum(valid.sum(1), 1)[:, None]
    return StreamSteps(unit(out), valid, unit(mean))


def unit(x: np.ndarray) -> np.ndarray:
    """The vectors of the last axis at length one; zeros stay zeros."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), np.float32)


def alike(stream: StreamSteps, least: float) -> list[tuple[int, int, float]]:
    """The pairs i < j of clips that are at least so alike, with their likeness; only a clip's nearest are looked at.

    A clip that is so alike to many clips shows what many do (an empty picture, silence), and not that they are copies:
    it is in no pair.
    """
    n = len(stream.mean)
    there: np.ndarray = np.asarray(stream.valid.any(1))
    found: dict[tuple[int, int], float] = {}
    common = set()
    for start in range(0, n if n > 1 else 0, _BLOCK):
        block = slice(start, min(start + _BLOCK, n))
        near = stream.mean[block] @ stream.mean.T
        near[:, ~there] = -np.inf
        near[np.arange(near.shape[0]), np.arange(block.start, block.stop)] = -np.inf
        count = min(_CANDIDATES, n - 1)
        nearest = np.argpartition(-near, count - 1, axis=1)[:, :count]
        for offset in np.flatnonzero(there[block]).tolist():
            i = start + offset
            others = nearest[offset][np.isfinite(near[offset, nearest[offset]])]
            likeness = likeness_of(stream, i, others)
            if (likeness >= least).sum() > _MOST:
                common.add(i)
            for j, value in zip(others[likeness >= least].tolist(), likeness[likeness >= least].tolist()):
                pair = (min(i, j), max(i, j))
                found[pair] = max(value, found.get(pair, value))
    return [(i, j, value) for (i, j), value in found.items() if not {i, j} & common]


def likeness_of(stream: StreamSteps, clip: int, others: np.ndarray) -> np.ndarray:
    """The likeness [m] of a clip to the clips ``others`` [m], in -1 to 1."""
    mine = stream.steps[clip][stream.valid[clip]]
    cosine = np.einsum("tk,msk->mts", mine, stream.steps[others])
    valid = stream.valid[others]
    cosine = np.where(valid[:, None], cosine, -1.0)
    forth = cosine.max(2).mean(1)
    back = np.where(valid, cosine.max(1), 0.0).sum(1) / np.maximum(valid.sum(1), 1)
    return np.asarray(np.maximum(forth, back))


def grouped(catalog: Catalog, pairs: Sequence[Likeness]) -> list[str]:
    """The group of each clip where duplicates share one: clips that pairs or groups of the catalog join stay together.

    A joined group keeps the name that comes first in the catalog; one of clips without a group is named
    ``duplicates of ID``, after its first clip.
    """
    parent = list(range(len(catalog)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(i: int, j: int) -> None:
        low, high = sorted((root(i), root(j)))
        parent[high] = low

    rows = catalog.rows()
    first_of: dict[str, int] = {}
    for row, name in enumerate(catalog.group):
        if name:
            join(first_of.setdefault(name, row), row)
    for pair in pairs:
        join(rows[pair.first], rows[pair.second])
    names: dict[int, str] = {}
    for row, name in enumerate(catalog.group):
        if name:
            names.setdefault(root(row), name)
    for pair in pairs:
        top = root(rows[pair.first])
        names.setdefault(top, f"duplicates of {catalog.clip_id[top]}")
    return [names.get(root(row), "") for row in range(len(catalog))]


def write_groups(folder: Path, pairs: Sequence[Likeness]) -> int:
    """Give the clips of pairs common groups in the catalog, and return the number of clips whose group has changed.

    Raises CacheError where the catalog cannot be changed.
    """
    changed = 0

    def joined(held: Catalog | None) -> Catalog:
        nonlocal changed
        if held is None:
            raise CacheError(f"Data set {folder.name!r} has lost its catalog; run the same again.")
        rows = held.rows()
        groups = grouped(held, [pair for pair in pairs if pair.first in rows and pair.second in rows])
        changed = sum(old != new for old, new in zip(held.group, groups))
        return replace(held, group=groups)

    update_catalog(folder, joined)
    return changed
