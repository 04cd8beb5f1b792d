"""Rows of a stream that the cache holds already under another id, or in another data set: they are copied, not made.

A row belongs to the bytes of a file, whose digest it bears. Clips of the same bytes therefore share their features.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ...cache.catalog import Catalog
from ...cache.schema import list_datasets, shard_paths
from ...cache.shard import Shard, read_shard
from ...errors import CacheError
from .changes import depends_on_id
from .failures import NOTED_ABSENT, PARTIAL, Failure, FailureLog, Key
from .lane import Lane
from .plan import Plan


def reuse(folder: Path, plan: Plan, lanes: Sequence[Lane], digest: Mapping[str, str]) -> list[Failure]:
    """Copy the rows that the plan would make and the cache holds under other keys; the plan is shortened by them.

    digest: the SHA-256 of clips' files, by clip, where it is known. Returns the lines of the log about the clips of
    these rows. Raises CacheError where a stream cannot be written.
    """
    lines: list[Failure] = []
    sources = {job.clip_id: job.source for job in plan.jobs}
    done: dict[str, set[int]] = defaultdict(set)
    logs: dict[Path, dict[Key, Failure]] = {}
    for number, lane in enumerate(lanes):
        if depends_on_id(lane.writer.provenance):
            continue
        lacking: dict[str, list[str]] = defaultdict(list)
        for job in plan.jobs:
            if number in job.wanted and digest.get(job.clip_id):
                lacking[digest[job.clip_id]].append(job.clip_id)
        for place, shard, row, sha256 in _rows_of(folder, lane, lacking.keys()):
            for clip in lacking.pop(sha256, []):
                features = shard.clip(row) if shard.present[row] else None
                lane.copy(clip, features, shard_facts(shard, row), shard.clip_times(row))
                done[clip].add(number)
                if place not in logs:
                    logs[place] = FailureLog(place).read()
                lines += [
                    Failure.of(clip, sources[clip], line.stage, line.reason, stream=line.stream)
                    for line in _lines_about(logs[place], shard.key[row], str(lane.writer.stream))
                ]
    plan.jobs = [
        replace(job, wanted=wanted)
        for job in plan.jobs
        if (wanted := tuple(number for number in job.wanted if number not in done[job.clip_id]))
    ]
    plan.complete += sum(1 for clip in done if clip not in {job.clip_id for job in plan.jobs})
    return lines


def shard_facts(shard: Shard, row: int) -> dict[str, object]:
    """The facts about the source of one row."""
    return {name: values[row] for name, values in shard.facts.items()}


def _rows_of(folder: Path, lane: Lane, wanted: Collection[str]) -> Iterator[tuple[Path, Shard, int, str]]:
    """The rows of files with these digests, (data set's folder, shard, row, digest), each digest once.

    This data set comes first. Streams that were made differently, and damaged shards and rows, are passed over.
    """
    left = set(wanted)
    others = [name for name in list_datasets(folder.parent) if name != folder.name]
    for place in (folder, *(folder.parent / name for name in others)) if left else ():
        for path in shard_paths(place, lane.writer.stream):
            if not left:
                return
            yield from _rows_in(place, path, lane, left)


def _rows_in(place: Path, path: Path, lane: Lane, left: set[str]) -> Iterator[tuple[Path, Shard, int, str]]:
    try:
        index = read_shard(path, features=False)
        if "sha256" not in index.facts or lane.writer.provenance.differences(index.provenance):
            return
        found = [(row, value.decode()) for row, value in enumerate(index.facts["sha256"].tolist())]
        if not any(sha256 in left for _, sha256 in found):
            return
        shard = read_shard(path)
    except CacheError:
        return
    for row, sha256 in found:
        if sha256 in left and shard.is_right(row):
            left.discard(sha256)
            yield place, shard, row, sha256


def _lines_about(log: Mapping[Key, Failure], key: str, stream: str) -> list[Failure]:
    """The lines of a log that stay true for the clip that takes a row over: its damage, and why it is absent."""
    found = [log.get((key, "")), log.get((key, stream))]
    return [line for line in found if line is not None and line.stage in (PARTIAL, NOTED_ABSENT)]


def known_digests(catalog: Catalog) -> dict[str, str]:
    """The SHA-256 of the clips' files, by clip, where it is known."""
    return {
        clip: digest.decode()
        for clip, digest in zip(catalog.clip_id, catalog.facts["sha256"].tolist())
        if digest
    }
