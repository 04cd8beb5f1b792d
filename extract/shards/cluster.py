"""A shared extraction on a Ray cluster: actors do shards from the file to the features, and this process stores them.

No frame crosses machines: an actor decodes and encodes in processes of its own machine, and sends back the shard's
files. The clips must lie at the same path on every machine; the cache is this machine's alone.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ...cache.job import MANIFEST, JobFolder, Manifest
from ...cache.schema import Provenance
from ...cache.upkeep.join import join_job_shards
from ...errors import CacheError, FsmmError, UsageError
from ...machine.files import parsed_json, whole_or_absent
from ...machine.locks import lock_of
from ...machine.outcome import Outcome
from ...machine.progress import Reporter, reporter
from ...machine.ray_actors import RayActors
from ...machine.ray_engine import connect, cores_beside_gpus, slots
from ..datasets.base import DatasetOptions
from ..pipeline.budget import CANARY, Budget, Limit, TooManyFailures, canary_first
from ..pipeline.failures import FailureLog
from ..pipeline.report import ExtractReport, StreamReport
from ..pipeline.writing import writable
from ..prepared import Prepared, prepare
from ..request import Precision, Request
from .one import clips_left, encoders_of, extract_part, files_below, join_job
from .plan import Part, default_shards, part_of, read_plan, shard_of

_A_SLOT = 2  # shards for each slot at least, so that the slots end at about the same time
_CANARY = 0  # the number of the canary among the shards
_LINE_SECONDS = 30.0


class Item(NamedTuple):
    """What an actor does at a time: the clips of a shard."""

    number: int
    """The number of the shard, or 0 for the canary."""
    shards: int
    """The number of shards."""
    clips: tuple[str, ...]
    """The ids of the clips that are to be done."""


class ShardWorker:
    """What an actor does: it lists the data set and loads the encoders once, then it does one shard after another."""

    def __init__(self, request: Request) -> None:
        self._prepared: Prepared = prepare(request)

    def __call__(self, item: Item) -> dict[str, bytes]:
        """The files of a shard's folder. Raises FsmmError where this machine lists fewer clips."""
        listing, request = self._prepared.listing, self._prepared.request
        if lacking := [clip for clip in item.clips if clip not in listing.sources]:
            raise FsmmError(
                f"A machine of the cluster has no file of {len(lacking):,} clips, such as {lacking[0]!r}; the data "
                "must lie at the same path on every machine."
            )
        with tempfile.TemporaryDirectory(prefix="fsmm-shard-") as place:
            extract_part(
                request,
                Path(place),
                part_of(listing, set(item.clips)),
                encoders_of(self._prepared.encoders, item.number),
                device=self._prepared.device,
                part=Part(item.number, item.shards),
                quiet=True,
            )
            return {name: (Path(place) / name).read_bytes() for name in files_below(Path(place))}


def extract_on_cluster(request: Request, *, quiet: bool) -> ExtractReport:
    """Do what is left of a data set on the machines of the cluster, join it, and return a report.

    Shards that a lost machine was doing are done again by others; those that were finished before are used. Raises
    TooManyFailures, and what the workers raise; what is finished stays, and the same call goes on from there.
    """
    connect()
    began = time.monotonic()
    crew = Crew.of(request)
    # The machines choose their device by themselves.
    if request.compiled and not crew.gpus:
        raise UsageError("--compile is for networks on a GPU, and the cluster has none; leave it out.")
    prepared = prepare(replace(request, device="cpu", precision=crew.request.precision, compiled=False))
    held = read_plan(JobFolder(prepared.folder))
    usual = held.shards if held is not None else crew.usual_shards(len(prepared.listing.sources))
    job = join_job(prepared, request.shards or usual)
    with _one_driver(job), reporter("clips", every=_LINE_SECONDS) as shown:
        run = ClusterRun(prepared, job, request.shards or usual, shown)
        if not quiet:
            for warning in prepared.listing.warnings:
                shown.say(f"warning: {warning}")
        if run.items:
            with RayActors(partial(ShardWorker, crew.request), cpus=crew.cpus, gpus=crew.gpus) as actors:
                if run.canary is not None:
                    run.judge_canary(next(actors.outcomes([run.canary])))
                for outcome in actors.outcomes(run.items):
                    run.keep(outcome)
        joined = run.join()
    return replace(joined, workers=crew.room, seconds={"wall": round(time.monotonic() - began, 3)})


@dataclass(frozen=True, kw_only=True)
class Crew:
    """The actors of a job."""

    request: Request
    """The request that they carry out, with whole paths."""
    cpus: float
    """The cores that each has to itself, for decoding."""
    gpus: float
    """The GPUs that each has to itself."""
    room: int
    """How many of them the cluster has room for."""

    @classmethod
    def of(cls, request: Request) -> Crew:
        """One actor a GPU where the cluster has any and the request does not ask for the CPU, else one a core."""
        gpus, cores = cores_beside_gpus()
        if request.device in ("auto", "cpu") and (request.device == "cpu" or not gpus):
            gpus, cores = 0, 1
        one = 1.0 if gpus or request.device not in ("auto", "cpu") else 0.0
        return cls(
            request=replace(
                request,
                data=None if request.data is None else request.data.expanduser().absolute(),
                weights={name: path.expanduser().absolute() for name, path in request.weights.items()},
                options=_with_whole_paths(request.options),
                workers=request.workers or cores,
                precision=_arithmetic(request, on_gpu=bool(one)),
                engine="local",
                shards=None,
                max_failures=None,
            ),
            cpus=float(cores),
            gpus=one,
            room=slots(cpus=float(cores), gpus=one),
        )

    def usual_shards(self, clips: int) -> int:
        """The number of shards of a job without a number of its own: each actor does some of them."""
        return max(1, min(clips, max(default_shards(clips), _A_SLOT * self.room)))


class ClusterRun:
    """A job on the cluster as its driver sees it.

    items: what the actors are to do. canary: what one of them does first, in a job that is worth it; None without one.
    """

    def __init__(self, prepared: Prepared, job: JobFolder, shards: int, shown: Reporter) -> None:
        self._prepared, self._job, self._shards, self._shown = prepared, job, shards, shown
        left = clips_left(prepared, prepared.listing.sources.keys())
        self.skipped = len(prepared.listing.sources) - len(left)
        self.items = self._items(left)
        self._clips = sum(len(item.clips) for item in self.items)
        self.canary = self._canary_item()
        text = prepared.request.max_failures
        self._limit = None if text is None else Limit.parse(text)
        self._budget = Budget(self._limit, self._clips)
        self._streams: dict[str, Provenance] = {}

    def _items(self, left: set[str]) -> list[Item]:
        """The shards with clips that are left and that are not finished; the largest come first."""
        clips: dict[int, list[str]] = defaultdict(list)
        for clip in self._prepared.listing.sources:
            if clip in left:
                clips[shard_of(clip, self._shards)].append(clip)
        if any(encoder.modality == "word" for encoder in self._prepared.encoders):
            clips.setdefault(1, [])
        found = [
            Item(number, self._shards, tuple(names))
            for number, names in clips.items()
            if not self._job.finished(number).exists()
        ]
        return sorted(found, key=lambda item: len(item.clips), reverse=True)

    def _canary_item(self) -> Item | None:
        clips = [clip for item in self.items for clip in item.clips]
        if len(clips) <= CANARY:
            return None
        sources = self._prepared.listing.sources
        first = canary_first(clips, lambda clip: sources[clip], lambda clip: clip)
        return Item(_CANARY, self._shards, tuple(first[:CANARY]))

    def judge_canary(self, outcome: Outcome) -> None:
        """Raise TooManyFailures where the first clips show that the job is hopeless; their features are not kept."""
        manifest = _manifest(_files_of(outcome))
        budget = Budget(self._limit, self._clips, canary=manifest.clips)
        budget.add(tried=manifest.clips, reasons=manifest.reasons)
        if verdict := budget.verdict():
            raise TooManyFailures(verdict)

    def keep(self, outcome: Outcome) -> None:
        """Store a shard; it appears by rename. Raises TooManyFailures where the job has become hopeless."""
        files = _files_of(outcome)
        manifest = _manifest(files)
        self._refuse_other_streams(manifest)
        with writable(self._prepared.folder):
            place = self._job.finished(manifest.shard)
            if not place.exists():  # A job of --shard may have done it meanwhile.
                with whole_or_absent(place) as temporary:
                    for name, content in files.items():
                        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                        (temporary / name).write_bytes(content)
        self._budget.add(tried=manifest.clips, reasons=manifest.reasons)
        failures = f"{self._budget.failed:,} failed" if self._budget.failed else ""
        self._shown(self._budget.tried, self._clips, failures)
        if verdict := self._budget.verdict():
            raise TooManyFailures(verdict)

    def _refuse_other_streams(self, manifest: Manifest) -> None:
        """Raise CacheError where a machine makes other features than another one."""
        for stream, text in manifest.streams.items():
            made = Provenance.from_json(text)
            if differ := self._streams.setdefault(stream, made).differences(made):
                raise CacheError(
                    f"The machines of the cluster make stream {stream} differently ({'; '.join(differ)}); install the "
                    "same weights and versions on all."
                )

    def join(self) -> ExtractReport:
        """Join the finished shards with the data set, and return the report of what the actors did."""
        folder, dataset = self._prepared.folder, self._prepared.listing.catalog.dataset
        streams: list[StreamReport] = []
        if self._job.all_finished():
            merged = join_job_shards(self._job)
            streams = [
                StreamReport(
                    name=name.removeprefix(f"{dataset}/"), dim=self._dim(name), written=count, copied=0
                )
                for name, count in merged.copied.items()
            ]
        log = FailureLog(folder).path
        return ExtractReport(
            dataset=dataset,
            folder=str(folder),
            device="the cluster",
            workers=0,
            clips=len(self._prepared.listing.sources),
            done=self._budget.tried - self._budget.failed,
            skipped=self.skipped,
            failed=self._budget.failed,
            missing=len(self._prepared.listing.missing),
            streams=streams,
            warnings=list(self._prepared.listing.warnings),
            failures_file=str(log) if log.is_file() and log.stat().st_size else "",
        )

    def _dim(self, name: str) -> int:
        encoder = name.rpartition("/")[2]
        return next((e.dim for e in self._prepared.encoders if e.name == encoder), 0)


def _arithmetic(request: Request, *, on_gpu: bool) -> Precision:
    """The arithmetic that all machines of a job share."""
    if request.precision != "auto":
        return request.precision
    return "bfloat16" if on_gpu else "float32"


@contextmanager
def _one_driver(job: JobFolder) -> Iterator[None]:
    """Be the one process that has a data set's shards done by a cluster. Raises CacheError where another is that."""
    with lock_of(job.root / ".driver.lock") as is_ours:
        if not is_ours:
            raise CacheError(
                f"Another process is extracting data set {job.dataset_folder.name!r} on a cluster; wait for it."
            )
        yield


def _files_of(outcome: Outcome) -> Mapping[str, bytes]:
    """The files of a shard. Raises FsmmError where it could not be done."""
    if outcome.reason:
        raise FsmmError(outcome.reason)
    files: Mapping[str, bytes] = outcome.value
    return files


def _manifest(files: Mapping[str, bytes]) -> Manifest:
    return Manifest(**parsed_json(files[MANIFEST].decode()))


def _with_whole_paths(options: DatasetOptions) -> DatasetOptions:
    """The options with paths that other machines, which work in other folders, understand alike."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    whole: dict[str, Any] = {
        name: value.expanduser().absolute() for name, value in values.items() if isinstance(value, Path)
    }
    return replace(options, **whole)
