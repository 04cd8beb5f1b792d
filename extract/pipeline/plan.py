"""The work that is left: which clips lack which streams, and which are left alone because they failed before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...cache.schema import StreamName
from ...cache.stream import stream_keys
from ..datasets.base import Listing
from .failures import (
    MISSING,
    NO_FAILURE,
    NOTED_ABSENT,
    PARTIAL,
    Failure,
    FailureLog,
    Key,
    file_state,
)
from .worker import Job


@dataclass
class Plan:
    """The work of one run.

    jobs: clips to decode, in listing order, each with the streams it lacks. complete: the number of clips that
    lack nothing. left_alone: the number of clips that failed before and are not tried again. held: by stream,
    the number of listed clips that it holds. stale: log lines that are no longer true. partial: by clip, the damage
    of its file that earlier runs survived.
    """

    jobs: list[Job] = field(default_factory=list)
    complete: int = 0
    left_alone: int = 0
    held: list[int] = field(default_factory=list)
    stale: set[Key] = field(default_factory=set)
    partial: dict[str, str] = field(default_factory=dict)


def make_plan(
    folder: Path, listing: Listing, streams: Sequence[StreamName], log: FailureLog, retry_failed: bool
) -> Plan:
    """Compare a listing with what the cache holds. Raises CacheError for a cache that cannot be read."""
    held = [stream_keys(folder, stream) for stream in streams]
    failed = log.read()
    plan = Plan(held=[sum(clip in rows for clip in listing.sources) for rows in held])
    # Earlier versions had a line for each listed clip without a file; now all of them have one together.
    plan.stale |= {key for key, line in failed.items() if line.stage == MISSING and line.id}
    for clip, source in listing.sources.items():
        lacks = [number for number, rows in enumerate(held) if clip not in rows]
        wanted = tuple(n for n in lacks if retry_failed or not _blocked(failed, clip, streams[n], listing))
        if wanted:
            plan.jobs.append(Job(clip, source, wanted, file_state(source)))
        elif lacks:
            plan.left_alone += 1
        else:
            plan.complete += 1
        plan.stale |= _stale(failed, clip, lacks, streams)
        whole = failed.get((clip, ""))
        if whole is not None and whole.stage == PARTIAL and not whole.changed(source):
            plan.partial[clip] = whole.reason
    return plan


def _blocked(failed: Mapping[Key, Failure], clip: str, stream: StreamName, listing: Listing) -> bool:
    """Whether this clip failed in this stream (or as a whole) and its file is still the same."""
    lines = (failed.get((clip, "")), failed.get((clip, str(stream))))
    return any(
        line is not None and line.stage not in NO_FAILURE and not line.changed(listing.sources[clip])
        for line in lines
    )


def _stale(
    failed: Mapping[Key, Failure], clip: str, lacks: Sequence[int], streams: Sequence[StreamName]
) -> set[Key]:
    """The log lines about a clip or its streams that the cache holds after all, left by a run that was killed early."""
    stale = set()
    whole = failed.get((clip, ""))
    if whole is not None and whole.stage not in (PARTIAL, MISSING) and not lacks:
        stale.add((clip, ""))
    for number, stream in enumerate(streams):
        line = failed.get((clip, str(stream)))
        if line is not None and number not in lacks and line.stage != NOTED_ABSENT:
            stale.add((clip, str(stream)))
    return stale
