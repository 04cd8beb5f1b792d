"""The state of a shared extraction, read from its files alone: whoever does the shards is not asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...cache.job import MANIFEST, JobFolder, read_manifest
from ...cache.schema import list_datasets, list_streams
from ...cache.stream import stream_keys
from ...errors import CacheError, listed, unknown
from ...machine.locks import lock_of
from .plan import read_plan


@dataclass(kw_only=True)
class JobStatus:
    """The shards of a data set's job, by what has become of them."""

    dataset: str
    """The name of the data set."""
    shards: int
    """The number of shards."""
    clips: int
    """The number of clips of the plan."""
    joined: list[int] = field(default_factory=list)
    """The shards that are part of the data set's streams."""
    finished: list[int] = field(default_factory=list)
    """The shards that are finished and not yet joined."""
    working: list[int] = field(default_factory=list)
    """The shards that a process is doing now."""
    left: list[int] = field(default_factory=list)
    """The shards that were left half done."""
    open: list[int] = field(default_factory=list)
    """The shards that nobody has begun, or that a cluster is doing."""
    clips_done: int = 0
    """The clips of the finished and joined shards, without those that failed."""
    clips_half: int = 0
    """The clips that shards hold which are not finished."""
    failed: int = 0
    """The clips that failed in finished and joined shards."""
    reasons: dict[str, int] = field(default_factory=dict)
    """The number of failed clips by reason."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def summary(self) -> str:
        """The status as a few lines for people."""
        counts = [(self.joined, "joined"), (self.finished, "finished"), (self.working, "in work")]
        counts += [(self.left, "left half done"), (self.open, "open")]
        shards = ", ".join(f"{len(numbers):,} {what}" for numbers, what in counts if numbers)
        lines = [
            f"{self.dataset}: {self.shards:,} shards: {shards}",
            f"  {self.clips_done:,} of {self.clips:,} clips done, {self.failed:,} failed, {self.clips_half:,} in "
            "shards that are not finished",
        ]
        lines += [f"  {count:>7,} x {reason}" for reason, count in Counter(self.reasons).most_common(20)]
        for numbers, what in counts[3:]:
            if numbers and (self.joined or self.finished or self.working or self.left):
                lines.append(f"  {what}: {listed([str(number) for number in numbers])}")
        return "\n".join(lines)


def job_statuses(cache: Path, dataset: str | None) -> list[JobStatus]:
    """The state of the job of a data set, or of each in the cache that has one.

    Raises UsageError for an unknown data set, CacheError where there is no job.
    """
    names = list_datasets(cache)
    if dataset is not None and dataset not in names:
        raise unknown("data set", dataset, names)
    found = [job_status(cache / name) for name in (names if dataset is None else [dataset])]
    jobs = [status for status in found if status is not None]
    if not jobs:
        raise CacheError(
            f"No shared extraction has been planned in {str(cache)!r}; `fsmm extract --shard 1/N` or --engine ray does."
        )
    return jobs


def job_status(folder: Path) -> JobStatus | None:
    """The state of the job of a data set's folder, or None where none was planned."""
    job = JobFolder(folder)
    if (plan := read_plan(job)) is None:
        return None
    status = JobStatus(dataset=plan.dataset, shards=plan.shards, clips=plan.clips)
    reasons: Counter[str] = Counter()
    for number in range(1, plan.shards + 1):
        manifest = _manifest_of(job, number, status)
        if manifest is not None:
            found = read_manifest(manifest)
            reasons.update(found.reasons)
            status.clips_done += found.clips - found.failed
            status.failed += found.failed
    status.reasons = dict(reasons)
    return status


def _manifest_of(job: JobFolder, number: int, status: JobStatus) -> Path | None:
    """The manifest of a shard, which is noted in the status; None for one that is not finished."""
    if job.finished(number).is_dir():
        status.finished.append(number)
        return job.finished(number) / MANIFEST
    if job.work(number).is_dir():
        status.clips_half += _rows(job.work(number) / status.dataset)
        (status.working if _is_locked(job.lock(number)) else status.left).append(number)
        return None
    if job.joined(number).is_file():
        status.joined.append(number)
        return job.joined(number)
    status.open.append(number)
    return None


def _rows(folder: Path) -> int:
    """The number of clips of which every stream in a folder has a row."""
    held = [set(stream_keys(folder, stream)) for stream in list_streams(folder) if stream.modality != "word"]
    return len(set.intersection(*held)) if held else 0


def _is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file; where the system has no locks, no."""
    try:
        with lock_of(path) as is_free:
            return not is_free
    except OSError:  # It may be read and not written here.
        return False
