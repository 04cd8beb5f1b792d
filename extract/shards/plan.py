"""The plan of a shared extraction: which clip belongs to which shard, fixed when the job is planned.

A clip's shard follows from its id alone, so that every machine knows it without asking, and a machine that lists other
clips, or would make other features, is found out before it has decoded anything.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...cache.job import JobFolder
from ...cache.locking import locked
from ...cache.schema import Provenance
from ...errors import CacheError, UsageError
from ...machine.files import parsed_json, write_json
from ..contract import Encoder
from ..datasets.base import Listing
from ..pipeline.lane import provenance_of
from ..pipeline.writing import writable
from ..request import Request

FORMAT = 1
HASH = "BLAKE2b-64 of the clip's id, modulo the number of shards, plus 1"
CLIPS = 500
"""The number of clips of a shard where the user gives no number of shards."""


class Part(NamedTuple):
    """One shard of n, from 1 to n.

    >>> Part.parse("3/16")
    Part(number=3, of=16)
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """The shard of a text such as ``3/16``. Raises UsageError for any other."""
        number, slash, of = text.partition("/")
        try:
            found = cls(int(number), int(of))
        except ValueError:
            found = cls(0, 0)
        if not slash or not 1 <= found.number <= found.of:
            raise UsageError(f"--shard takes I/N with I from 1 to N, such as 3/16, not {text!r}.")
        return found


def shard_of(clip: str, shards: int) -> int:
    """The shard of a clip, from 1.

    >>> [shard_of(clip, 4) for clip in ("a/1.mp4", "a/2.mp4", "b/1.mp4")]
    [2, 1, 4]
    """
    digest = hashlib.blake2b(clip.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") % shards + 1


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """The plan, as it lies in plan.json."""

    dataset: str
    """The name of the data set."""
    shards: int
    """The number of shards."""
    clips: int
    """The number of listed clips that have files."""
    clips_digest: str
    """The SHA-256 of their sorted ids, one a line."""
    streams: Mapping[str, str] = field(default_factory=dict)
    """The provenance of each stream, as JSON."""
    rule: str = HASH
    """How a clip's shard follows from its id."""
    format: int = FORMAT
    """The format of the file."""

    def differences(self, other: ShardPlan) -> list[str]:
        """Clauses that say in what another plan differs from this one."""
        found = [
            f"{name} is {getattr(self, name)!r} there and {getattr(other, name)!r} here"
            for name in ("format", "rule", "shards", "clips")
            if getattr(self, name) != getattr(other, name)
        ]
        if not found and self.clips_digest != other.clips_digest:
            found.append("other clips are listed here")
        for stream in sorted({*self.streams, *other.streams}):
            one, two = self.streams.get(stream), other.streams.get(stream)
            if one is None or two is None:
                found.append(f"stream {stream} is made {'here' if one is None else 'there'} alone")
            else:
                differ = Provenance.from_json(one).differences(Provenance.from_json(two))
                found += [f"of stream {stream}, {clause}" for clause in differ]
        return found


def plan_for(request: Request, listing: Listing, encoders: Sequence[Encoder], shards: int) -> ShardPlan:
    """The plan of this request with so many shards."""
    digest = hashlib.sha256()
    for clip in sorted(listing.sources):
        digest.update(clip.encode("utf-8", "surrogatepass") + b"\n")
    return ShardPlan(
        dataset=listing.catalog.dataset,
        shards=shards,
        clips=len(listing.sources),
        clips_digest=digest.hexdigest(),
        streams={
            f"{encoder.modality}/{encoder.name}": _provenance(request, encoder).to_json()
            for encoder in encoders
        },
    )


def default_shards(clips: int) -> int:
    """The number of shards of so many clips."""
    return max(1, math.ceil(clips / CLIPS))


def fix_plan(folder: Path, plan: ShardPlan) -> None:
    """Write the plan of a data set's job, or join the job that has the same plan.

    A plan whose shards have all been joined gives way to a new one. Raises CacheError where another job has begun.
    """
    job = JobFolder(folder)
    with writable(folder):
        job.shards.mkdir(parents=True, exist_ok=True)
        with locked(folder, "job"):
            held = read_plan(job)
            differ = [] if held is None else held.differences(plan)
            if held is not None and differ and _has_begun(job):
                raise CacheError(
                    f"Another job has begun on data set {folder.name!r} ({'; '.join(differ)}); finish it and join it "
                    f"by `fsmm cache merge --cache {folder.parent}`, or delete {str(job.root)!r}."
                )
            if held is None or differ:
                for joined in (job.root / "joined").glob("*.json"):
                    joined.unlink()
                write_json(job.plan, asdict(plan))


def read_plan(job: JobFolder) -> ShardPlan | None:
    """The plan of a job, or None where there is none. Raises CacheError where it cannot be read."""
    try:
        values: dict[str, Any] = parsed_json(job.plan.read_text("utf-8"))
        return ShardPlan(**values)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(
            f"The plan {str(job.plan)!r} cannot be read ({error}); delete it, and start the job again."
        ) from None


def part_of(listing: Listing, clips: Collection[str], *, missing: Iterable[str] = ()) -> Listing:
    """The listing of some of the clips, in the same order. missing: the listed clips without a file that it names."""
    catalog = listing.catalog
    rows = np.array([row for row, clip in enumerate(catalog.clip_id) if clip in clips], np.int64)
    return replace(
        listing,
        catalog=catalog.take(rows),
        sources={clip: source for clip, source in listing.sources.items() if clip in clips},
        missing=list(missing),
        warnings=[],
        partial=True,
    )


def _has_begun(job: JobFolder) -> bool:
    """Whether a shard is finished or half done and has not been joined."""
    return bool(job.all_finished()) or any(job.shards.glob(".*.work"))


def _provenance(request: Request, encoder: Encoder) -> Provenance:
    """The provenance of a stream of this request, without the version of fsmm, which is not compared."""
    axis = "class" if encoder.modality == "word" else "clip"
    return provenance_of(encoder, request.sampling, request.dtype, axis)
