"""Clips through decoding workers and encoders into the streams of a cache.

workers (one a core)         this process
decode once, prepare  -->    batch by stream, encode, write     (listing order, bounded memory)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...cache.schema import Provenance, StreamName
from ...cache.stream import StreamWriter
from ...errors import CacheError
from ...machine.cores import default_workers
from ..contract import Encoder, Sampling
from ..datasets.base import Listing
from .failures import NOTED_ABSENT, Failure, FailureLog, Key
from .lane import Clock, Lane, provenance_of
from .plan import Plan
from .pool import DEFAULT_TIMEOUT, Pool
from .progress import Progress
from .worker import ABSENT, FAILED, Job, Outcome, Setup

FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class Settings:
    """How a run works; nothing here changes a feature but sampling and dtype.

    workers: decoding processes; None for one a core. timeout: seconds a clip may take to decode.
    flush_seconds: no finished clip waits longer than this for its shard.
    """

    sampling: Sampling = field(default_factory=Sampling)
    dtype: str = "float16"
    workers: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    flush_seconds: float = FLUSH_SECONDS


@dataclass
class Done:
    """What a run over the clips came to. lanes: by stream, for their counts. interrupted: it was stopped early."""

    done: int = 0
    failed: int = 0
    wall: float = 0.0
    workers: int = 0
    interrupted: bool = False
    lanes: dict[StreamName, Lane] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    @property
    def busy(self) -> float:
        """Share of the time in which an encoder ran."""
        return self.clock.seconds["encode"] / self.wall if self.wall else 0.0


def run_clips(
    folder: Path,
    listing: Listing,
    plan: Plan,
    encoders: Sequence[Encoder],
    settings: Settings,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> Done:
    """Carry out a plan made for these encoders' streams, in this order.

    Raises CacheError when the cache cannot be written or a stream is of another origin, FsmmError when
    workers or an encoder are no use; what was written before stays, and the next run continues there.
    """
    run = _Run(folder, listing, settings, progress)
    return run.go(plan, encoders, stop)


class _Run:
    """The state of one run over the clips."""

    def __init__(self, folder: Path, listing: Listing, settings: Settings, progress: Progress) -> None:
        self.folder, self.listing, self.settings, self.progress = folder, listing, settings, progress
        self.log = FailureLog(folder)
        self.result = Done()
        self.solved: set[Key] = set()
        self.flushed = time.monotonic()

    def go(self, plan: Plan, encoders: Sequence[Encoder], stop: Callable[[], bool]) -> Done:
        result, clock = self.result, self.result.clock
        with ExitStack() as stack:
            lanes = [self._lane(encoder, stack) for encoder in encoders]
            self.log.forget(plan.stale)
            self.log.append(
                Failure.of(clip, None, "missing", "its file was not found") for clip in plan.missing
            )
            began = time.perf_counter()
            if plan.jobs:
                setup = Setup(tuple(encoders), self.settings.sampling)
                result.workers = min(self.settings.workers or default_workers(), len(plan.jobs))
                pool = Pool(setup, plan.jobs, result.workers, self.settings.timeout, stop)
                self._consume(stack.enter_context(pool), lanes, began)
            result.interrupted = stop()
            for lane in lanes:
                lane.drain()
                lane.flush()
            result.wall = time.perf_counter() - began
            clock.seconds["wait"] = max(0.0, result.wall - clock.seconds["encode"] - clock.seconds["write"])
        self.log.forget(self.solved)
        return result

    def _lane(self, encoder: Encoder, stack: ExitStack) -> Lane:
        provenance = provenance_of(encoder, self.settings.sampling, self.settings.dtype)
        writer = open_writer(self.folder, provenance)
        stack.callback(_close, writer)
        name = StreamName(encoder.modality, encoder.name)

        def failed(clip: str, stage: str, reason: str) -> None:
            self.log.append([Failure.of(clip, self.listing.sources[clip], stage, reason, str(name))])
            self.solved.discard((clip, str(name)))

        self.result.lanes[name] = Lane(encoder, writer, self.result.clock, failed)
        return self.result.lanes[name]

    def _consume(self, pool: Pool, lanes: Sequence[Lane], began: float) -> None:
        result = self.result
        for job, outcome in pool.outcomes():
            for stage, seconds in outcome.seconds.items():
                result.clock.seconds[stage] += seconds
            if outcome.stage:
                result.failed += 1
                self.log.append([self._failure(job, outcome.stage, outcome.reason)])
            else:
                result.done += 1
                self._spread(job, outcome, lanes)
            if time.monotonic() - self.flushed > self.settings.flush_seconds:
                for lane in lanes:
                    lane.flush()
                self.flushed = time.monotonic()
            busy = result.clock.seconds["encode"] / max(time.perf_counter() - began, 1e-9)
            self.progress.advance(failed=result.failed, busy=busy)

    def _spread(self, job: Job, outcome: Outcome, lanes: Sequence[Lane]) -> None:
        """Hand one clip's parts to the streams that wanted it."""
        facts = asdict(outcome.facts)
        self.solved.add((job.clip_id, ""))
        told = []
        for number, part in outcome.parts.items():
            stream = str(lanes[number].writer.stream)
            if part.state == FAILED:
                lanes[number].failures += 1
                told.append(self._failure(job, "prepare", part.reason, stream))
                continue
            if part.state == ABSENT and part.reason:
                told.append(self._failure(job, NOTED_ABSENT, part.reason, stream))
            else:
                self.solved.add((job.clip_id, stream))
            lanes[number].add(job.clip_id, part, facts)
        self.log.append(told)

    def _failure(self, job: Job, stage: str, reason: str, stream: str = "") -> Failure:
        return Failure.of(job.clip_id, job.source, stage, reason, stream)


def open_writer(folder: Path, provenance: Provenance) -> StreamWriter:
    """A stream's writer. Raises CacheError also where its folder cannot be made."""
    with writable(folder):
        return StreamWriter(folder, provenance)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """What the system says about a dataset's folder, as a CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"The cache {str(folder.parent)!r} cannot be written ({error.strerror or error}); choose another --cache."
        ) from error


def _close(writer: StreamWriter) -> None:
    """Release a stream. Rows that could not be flushed were reported by the error that brought us here."""
    with suppress(CacheError):
        writer.close()
