"""One extraction, from a listing to the streams of a cache.

workers (one a core)                   this process
without a GPU: decode once, encode -->    write                             (listing order, bounded memory)
with a GPU: decode once, prepare   -->    batch by stream, encode, write
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ...cache.attempt import first_attempt
from ...cache.catalog import Catalog
from ...cache.schema import StreamName
from ...cache.thumbnails import add_thumbnails, rename_thumbnails
from ...errors import CacheError
from ...machine.cores import default_workers
from ..contract import Encoder
from ..datasets.base import Listing, asks_for_split
from ..request import Request
from .budget import CANARY, Budget, Limit, TooManyFailures, canary_first
from .class_words import Words, embed_words, unknown_words
from .division import Division
from .failures import MISSING_LIST, NOTED_ABSENT, PARTIAL, UNSEEN, Failure, FailureLog, Key
from .lane import Clock, Lane, provenance_of
from .membership import Membership
from .passports import write_passports
from .plan import Plan, make_plan
from .pool import Pool
from .progress import Progress, clip_progress
from .report import ExtractReport, StreamReport
from .reuse import known_digests, reuse
from .stopping import Interrupted, StopOnSignal
from .towers import doubtful_towers
from .worker import ABSENT, FAILED, Job, Outcome, Setup
from .writing import open_writer, release

_TOLD = 5  # notes of a clip's damage that its line repeats


class Extraction:
    """One run, which writes the catalog, then words, then clips, then what was learned about the clips.

    done, failed, partial: numbers of clips of this run; partial ones are done as well. lanes: the streams of clips on
    their way into the cache. clock: seconds by stage.
    """

    def __init__(
        self, request: Request, folder: Path, listing: Listing, encoders: Sequence[Encoder], *, quiet: bool
    ) -> None:
        self.request, self.folder, self.quiet = request, folder, quiet
        self.membership = Membership(
            folder, listing, into=request.into is not None, new_split=asks_for_split(request.options)
        )
        self.word_encoders = [encoder for encoder in encoders if encoder.modality == "word"]
        self.clip_encoders = [encoder for encoder in encoders if encoder.modality != "word"]
        self.warnings = list(listing.warnings)
        self.words: dict[StreamName, Words] = {}
        self.lanes: dict[StreamName, Lane] = {}
        self.done = self.failed = self.partial = self.gone = 0
        self._division = Division(self.clip_encoders, "cpu")
        self.wall = 0.0
        self.clock, self.log = Clock(), FailureLog(folder)
        self._solved: set[Key] = set()
        self._known_damage: dict[str, str] = {}
        self._budget = Budget(None, 0)
        self._jobs: dict[str, Job] = {}
        self._digests: Mapping[str, str] = {}
        self._pictures: dict[str, bytes] = {}
        self._flushed = time.monotonic()

    @property
    def listing(self) -> Listing:
        """The listing, with the ids that its clips have in the data set."""
        return self.membership.listing

    def run(self, device: str) -> ExtractReport:
        """Bring the cache up to date.

        Raises CacheError if the cache cannot be written or a stream is of another origin, FsmmError if the workers or
        an encoder fail as a whole, TooManyFailures, and Interrupted. Rows that were written before stay, and the next
        run continues after them.
        """
        self._division.device = device
        with first_attempt(self.folder, is_worth_keeping=self._is_worth_keeping), StopOnSignal() as stop:
            streams = [StreamName(encoder.modality, encoder.name) for encoder in self.clip_encoders]
            catalog = self._join(streams)
            for encoder in self.word_encoders:
                self._embed(catalog, encoder)
            plan = make_plan(
                self.folder, self.listing, streams, self.log, retry_failed=self.request.retry_failed
            )
            self._digests = known_digests(catalog)
            interrupted = self._run_clips(plan, stop)
            with self.clock("catalog"):
                self.gone = int(self.membership.unite_with_facts().sources.gone.sum())
        if verdict := self._budget.verdict():
            raise TooManyFailures(verdict)
        if interrupted:
            raise Interrupted(
                f"Interrupted: {plan.complete + self.done} of {len(self.listing.sources)} clips are in the cache; run "
                "the same command again to continue."
            )
        return self._report(device, plan)

    def _is_worth_keeping(self, streams: Sequence[StreamName]) -> bool:
        """Whether a data set that holds these streams and no other is one: class words alone are not what was asked."""
        return any(stream.modality != "word" or not self.clip_encoders for stream in streams)

    def _join(self, streams: Sequence[StreamName]) -> Catalog:
        """Make the listing a part of the data set, and bring what the cache holds in line with it."""
        with self.clock("compare"):
            self.membership.compare(streams)
            changes = self.membership.changes
            catalog = self.membership.unite()
            rename_thumbnails(self.folder, changes.moved)
            self.log.rename({old: (new, self.listing.sources[new]) for old, new in changes.moved.items()})
        self.warnings += self.membership.notes
        if changes.gone:
            self.warnings.append(gone_sentence(changes.gone))
        return catalog

    def _embed(self, catalog: Catalog, encoder: Encoder) -> None:
        stream = StreamName(encoder.modality, encoder.name)
        self.words[stream] = embed_words(
            self.folder, catalog, encoder, dtype=self.request.dtype, clock=self.clock
        )
        if sentence := unknown_words(stream, self.words[stream]):
            self.warnings.append(sentence)

    def _run_clips(self, plan: Plan, stop: StopOnSignal) -> bool:
        """Carry out a plan made for the clip encoders' streams, in this order; return whether it was interrupted."""
        if self.listing.missing:
            self.warnings.append(_missing_sentence(self.listing))
        with ExitStack() as stack:
            self._division.settle(self.request.workers or default_workers(), len(plan.jobs))
            lanes = [self._lane(encoder, stack) for encoder in self.clip_encoders]
            copied = reuse(self.folder, plan, lanes, self._digests)
            progress = stack.enter_context(clip_progress(len(plan.jobs)))
            if not self.quiet:
                for warning in self.warnings:
                    progress.say(f"warning: {warning}")
            self._known_damage = plan.partial
            self._jobs = {job.clip_id: job for job in plan.jobs}
            self.log.forget(plan.stale)
            self.log.append(copied)
            self.log.tell_missing(self.listing.missing)
            began = time.perf_counter()
            self._set_limit(plan)
            if plan.jobs:
                pool = stack.enter_context(self._pool(plan, lanes, stop))
                with self.clock("passport"):
                    self.warnings += write_passports(self.folder, lanes, elsewhere=self._division.own)
                    self.warnings += doubtful_towers(lanes, self.word_encoders)
                    self._division.load()
                self._consume(pool, lanes, progress, began)
            interrupted = stop()
            for lane in lanes:
                lane.drain()
                lane.flush()
            self._keep_pictures()
            self.wall = time.perf_counter() - began
        seconds = self.clock.seconds
        seconds["wait"] = max(0.0, self.wall - self._division.seconds_here(seconds) - seconds["write"])
        self.log.forget(self._solved)
        return interrupted

    def _set_limit(self, plan: Plan) -> None:
        """Obey the user's limit of failures: some clips of every kind of file come first."""
        if self.request.max_failures is not None:
            plan.jobs = canary_first(plan.jobs, lambda job: job.source, lambda job: job.clip_id)
            limit, count = Limit.parse(self.request.max_failures), len(plan.jobs)
            self._budget = Budget(limit, count, canary=min(CANARY, count))

    def _record(self, failures: Sequence[Failure]) -> None:
        """Write lines into the log, and count what failed."""
        self.log.append(failures)
        self._budget.note(failures)

    def _pool(self, plan: Plan, lanes: Sequence[Lane], stop: StopOnSignal) -> Pool:
        setup = Setup(
            encoders=tuple(self.clip_encoders),
            sampling=self.request.sampling,
            thumbnails=self.request.thumbnails,
            own=self._division.own,
        )
        return Pool(
            setup,
            plan.jobs,
            self._division.workers,
            timeout=self.request.timeout,
            stop=stop,
            idle=partial(self._make_safe, lanes),
            patience=self.request.flush_seconds,
        )

    def _make_safe(self, lanes: Sequence[Lane]) -> None:
        """Encode and write the clips that wait, if they have waited for as long as they may."""
        if time.monotonic() - self._flushed > self.request.flush_seconds:
            for lane in lanes:
                lane.drain()
                lane.flush()
            self._keep_pictures()
            self._flushed = time.monotonic()

    def _keep_pictures(self) -> None:
        """Write the pictures of the clips that are safe; features matter more, so that a failure is a warning."""
        pictures, self._pictures = self._pictures, {}
        try:
            add_thumbnails(self.folder, pictures)
        except CacheError as error:
            if str(error) not in self.warnings:
                self.warnings.append(str(error))

    def _lane(self, encoder: Encoder, stack: ExitStack) -> Lane:
        writer = open_writer(self.folder, provenance_of(encoder, self.request.sampling, self.request.dtype))
        stack.callback(release, writer)
        threads = self._division.threads(self.clip_encoders.index(encoder))
        name = StreamName(encoder.modality, encoder.name)

        def failed(clip: str, stage: str, reason: str) -> None:
            self._record([_failure(self._jobs[clip], stage, reason, str(name))])
            self._solved.discard((clip, str(name)))

        self.lanes[name] = Lane(encoder, writer, self.clock, failed, threads=threads)
        stack.callback(self.lanes[name].close)
        return self.lanes[name]

    def _consume(self, pool: Pool, lanes: Sequence[Lane], progress: Progress, began: float) -> None:
        for job, outcome in pool.outcomes():
            self._division.count(outcome.seconds, self.clock.seconds)
            job = self._as_read(job, outcome)
            if outcome.stage:
                self.failed += 1
                self._record([_failure(job, outcome.stage, outcome.reason)])
            else:
                self.done += 1
                if outcome.thumbnail:
                    self._pictures[job.clip_id] = outcome.thumbnail
                self._spread(job, outcome, lanes)
            self._make_safe(lanes)
            busy = self._division.busy(time.perf_counter() - began, self.clock.seconds)
            progress.advance(failed=self.failed, busy=busy)
            self._budget.add(tried=1, reasons={})
            if self._budget.verdict():
                return

    def _as_read(self, job: Job, outcome: Outcome) -> Job:
        """The job, once the state is noted in which its files were read, not that in which they were listed.

        A clip of which the cache knows other bytes fails, since its other streams have rows of these: the next run
        tries it again, sees the change, and makes all of them.
        """
        if outcome.stage or outcome.state is None:
            return job
        if outcome.facts.sha256 != self._digests.get(job.clip_id, outcome.facts.sha256):
            outcome.stage, outcome.reason = (
                "decode",
                "its file changed after the run had begun; run the same again",
            )
            return replace(job, state=UNSEEN)
        self.membership.changes.state[job.clip_id] = outcome.state
        return job

    def _spread(self, job: Job, outcome: Outcome, lanes: Sequence[Lane]) -> None:
        """Hand one clip's parts to the streams that wanted it."""
        facts = asdict(outcome.facts)
        failures = self._damage(job, outcome.notes)
        for number, part in outcome.parts.items():
            stream = str(lanes[number].writer.stream)
            if part.state == FAILED:
                lanes[number].failures += 1
                failures.append(_failure(job, "prepare", part.reason, stream))
                continue
            if part.state == ABSENT and part.reason:
                failures.append(_failure(job, NOTED_ABSENT, part.reason, stream))
            else:
                self._solved.add((job.clip_id, stream))
            lanes[number].add(job.clip_id, part, facts)
        self._record(failures)

    def _damage(self, job: Job, notes: Sequence[str]) -> list[Failure]:
        """The line about a clip that was read in part, with what earlier runs noted about the same file."""
        known = self._known_damage.get(job.clip_id, "")
        told = [known] if known else []
        told += [note for note in dict.fromkeys(notes) if note not in known]
        self.partial += bool(told)
        if not told:
            self._solved.add((job.clip_id, ""))
            return []
        more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
        return [_failure(job, PARTIAL, "; ".join(told[:_TOLD]) + more)]

    def _report(self, device: str, plan: Plan) -> ExtractReport:
        log = self.log.path
        busy = self._division.busy(self.wall, self.clock.seconds) if self.wall else 0.0
        within = self.clock.share_within("encode")
        return ExtractReport(
            dataset=self.listing.catalog.dataset,
            folder=str(self.folder),
            device=device,
            workers=self._division.workers,
            clips=len(self.listing.sources),
            done=self.done,
            skipped=plan.complete,
            failed=self.failed,
            partial=self.partial,
            left_alone=plan.left_alone,
            missing=len(self.listing.missing),
            changed=len(self.membership.changes.changed),
            moved=len(self.membership.changes.moved),
            gone=self.gone,
            clips_per_second=round((self.done + self.failed) / self.wall, 3) if plan.jobs else 0.0,
            encoder_busy=round(busy, 4) if plan.jobs else 0.0,
            encoder_busy_once_begun=None if within is None else round(within, 4),
            seconds={stage: round(value, 3) for stage, value in self.clock.seconds.items()},
            streams=[*self._word_reports(), *self._lane_reports(plan)],
            warnings=self.warnings,
            failures_file=str(log) if log.is_file() and log.stat().st_size else "",
        )

    def _word_reports(self) -> list[StreamReport]:
        return [
            StreamReport(
                name=str(stream),
                dim=encoder.dim,
                written=words.written,
                absent=len(words.unknown),
                held=words.held,
            )
            for (stream, words), encoder in zip(self.words.items(), self.word_encoders)
        ]

    def _lane_reports(self, plan: Plan) -> list[StreamReport]:
        return [
            StreamReport(
                name=str(stream),
                dim=lane.encoder.dim,
                written=lane.written,
                absent=lane.absent,
                failed=lane.failures,
                held=held,
                copied=lane.copied,
            )
            for (stream, lane), held in zip(self.lanes.items(), plan.held)
        ]


def _failure(job: Job, stage: str, reason: str, stream: str = "") -> Failure:
    return Failure.of(job.clip_id, job.source, stage, reason, stream=stream, state=job.state)


def _missing_sentence(listing: Listing) -> str:
    return f"{len(listing.missing)} listed clips have no file ({_some(listing.missing)}); {MISSING_LIST} names them."


def gone_sentence(gone: Collection[str]) -> str:
    """A sentence about clips that the listing has no more."""
    count = "1 clip is" if len(gone) == 1 else f"{len(gone):,} clips are"
    return (
        f"{count} listed no more, and left out of evaluations ({_some(sorted(gone))}); `fsmm cache prune` removes what "
        "is listed no more."
    )


def _some(clips: Sequence[str]) -> str:
    return ", ".join(clips[:3]) + (", ..." if len(clips) > 3 else "")
