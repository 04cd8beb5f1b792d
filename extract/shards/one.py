"""One shard of a shared extraction: a small cache of its own, which appears under its name when it is finished."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from ...cache.job import MANIFEST, JobFolder, Manifest
from ...cache.schema import StreamName
from ...cache.stream import stream_provenance
from ...cache.upkeep.merge import unite
from ...errors import CacheError, UsageError
from ...machine.files import write_json
from ...machine.locks import lock_of
from ..clip_files import sha256_of
from ..contract import Encoder
from ..datasets.base import Listing, asks_for_split
from ..pipeline.budget import kind_of_failure
from ..pipeline.extraction import Extraction
from ..pipeline.failures import NO_FAILURE, FailureLog
from ..pipeline.membership import Membership
from ..pipeline.plan import make_plan
from ..pipeline.report import ExtractReport
from ..pipeline.writing import writable
from ..prepared import Prepared
from ..request import Request
from .plan import Part, fix_plan, part_of, plan_for, read_plan, shard_of

_PATIENCE = 1.0  # seconds; whoever asks whether a shard is being done holds its lock for an instant


def extract_shard(prepared: Prepared, part: Part, *, quiet: bool) -> ExtractReport:
    """Do one shard, which another process must not be doing, and return the report of what was done now.

    A shard that was left half done is continued. Raises CacheError where the machine lists other clips or makes other
    features than the plan says, and what an extraction raises.
    """
    job = join_job(prepared, part.of)
    clips = {clip for clip in prepared.listing.sources if shard_of(clip, part.of) == part.number}
    with writable(prepared.folder), turn_at_shard(job, part):
        done, work = job.finished(part.number), job.work(part.number)
        if done.exists() and prepared.request.retry_failed:
            os.replace(done, work)
        if done.exists():
            return _report_of_nothing(prepared, clips, done)
        left = clips_left(prepared, clips)
        if job.joined(part.number).exists() and not left:
            return _report_of_nothing(prepared, clips, prepared.folder)
        encoders = encoders_of(prepared.encoders, part.number)
        report = extract_part(
            prepared.request,
            work,
            part_of(prepared.listing, left),
            encoders,
            device=prepared.device,
            part=part,
            quiet=quiet,
        )
        os.replace(work, done)
    moved = replace(
        report,
        folder=str(done / prepared.listing.catalog.dataset),
        failures_file=report.failures_file.replace(str(work), str(done)),
    )
    if len(job.all_finished()) == part.of:
        moved.warnings.append(
            f"All {part.of} shards are finished; `fsmm cache merge --cache {prepared.folder.parent}` joins them."
        )
    return moved


def join_job(prepared: Prepared, shards: int) -> JobFolder:
    """The job of a request, which is planned if need be: its catalog is written, and its plan is fixed.

    Raises CacheError where the job that has begun is another one, or where the clips cannot join the data set.
    """
    request, folder, listing = prepared.request, prepared.folder, prepared.listing
    job = JobFolder(folder)
    plan = plan_for(request, listing, prepared.encoders, shards)
    held = read_plan(job)
    if held is not None and not held.differences(plan) and (folder / "catalog.h5").is_file():
        return job
    if not listing.sources:
        raise UsageError(
            f"Data set {listing.catalog.dataset!r} lists no clip with a file; there is nothing to do."
        )
    fix_plan(folder, plan)
    membership = Membership(folder, listing, into=False, new_split=asks_for_split(request.options))
    membership.compare([StreamName(encoder.modality, encoder.name) for encoder in prepared.encoders])
    if membership.listing.sources.keys() != listing.sources.keys():
        raise CacheError(
            f"Clips of this data get other ids in data set {folder.name!r}, which holds clips of other data; give "
            "these a --name of their own."
        )
    catalog = membership.unite()
    unite([(str(folder.parent), catalog), ("this listing", listing.catalog)])
    FailureLog(folder).tell_missing(listing.missing)
    return job


def clips_left(prepared: Prepared, clips: Collection[str]) -> set[str]:
    """The clips among these that the data set lacks in some stream and that have not failed before."""
    streams = [
        StreamName(encoder.modality, encoder.name)
        for encoder in prepared.encoders
        if encoder.modality != "word"
    ]
    retry = prepared.request.retry_failed
    plan = make_plan(
        prepared.folder, prepared.listing, streams, FailureLog(prepared.folder), retry_failed=retry
    )
    return {job.clip_id for job in plan.jobs}.intersection(clips)


def encoders_of(encoders: Sequence[Encoder], number: int) -> list[Encoder]:
    """The encoders of a shard: class words, which belong to no clip, are embedded by the first shard alone."""
    return [encoder for encoder in encoders if encoder.modality != "word" or number == 1]


def extract_part(
    request: Request,
    place: Path,
    listing: Listing,
    encoders: Sequence[Encoder],
    *,
    device: str,
    part: Part,
    quiet: bool,
) -> ExtractReport:
    """Extract the clips of a listing into a cache of its own in ``place``, and write its manifest last."""
    began = time.monotonic()
    folder = place / listing.catalog.dataset
    place.mkdir(parents=True, exist_ok=True)
    if listing.sources and encoders:
        report = Extraction(request, folder, listing, encoders, quiet=quiet).run(device)
    else:
        report = ExtractReport(listing.catalog.dataset, str(folder), device, workers=0)
    reasons = _reasons(folder)
    streams = [StreamName(encoder.modality, encoder.name) for encoder in encoders]
    manifest = Manifest(
        shard=part.number,
        shards=part.of,
        clips=len(listing.sources),
        failed=sum(reasons.values()),
        reasons=dict(reasons),
        seconds=round(time.monotonic() - began, 3),
        streams={
            str(stream): made.to_json()
            for stream in streams
            if (made := stream_provenance(folder, stream)) is not None
        },
        files={name: sha256_of([place / name]) for name in files_below(place) if name != MANIFEST},
    )
    write_json(place / MANIFEST, asdict(manifest))
    return report


def files_below(place: Path) -> list[str]:
    """The paths of the files of a shard in its folder, without hidden ones, which are locks and what can be derived."""
    return sorted(
        path.relative_to(place).as_posix()
        for path in place.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    )


@contextmanager
def turn_at_shard(job: JobFolder, part: Part) -> Iterator[None]:
    """Be the one writer of a shard in the block. Raises CacheError where another process is that."""
    until = time.monotonic() + _PATIENCE
    while True:
        with lock_of(job.lock(part.number)) as is_ours:
            if is_ours:
                yield
                return
        if time.monotonic() > until:
            raise CacheError(
                f"Another process is doing shard {part.number} of {part.of} of data set {job.dataset_folder.name!r}; "
                "wait for it, or do another one."
            )
        time.sleep(_PATIENCE / 20)


def _report_of_nothing(prepared: Prepared, clips: Collection[str], folder: Path) -> ExtractReport:
    """The report of a shard that was finished before."""
    return ExtractReport(
        dataset=prepared.listing.catalog.dataset,
        folder=str(folder),
        device=prepared.device,
        workers=0,
        clips=len(clips),
        skipped=len(clips),
    )


def _reasons(folder: Path) -> Counter[str]:
    """The number of clips of a data set that failed, by reason; each is counted once."""
    found: dict[str, str] = {}
    for (clip, _), failure in FailureLog(folder).read().items():
        if failure.stage not in NO_FAILURE:
            found.setdefault(clip, kind_of_failure(failure))
    return Counter(found.values())
