"""The frames of a tuning's clips as the encoder reads them, decoded once and kept on the disk until it is over."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import FsmmError
from ...machine.checked import with_check, without_check
from ...machine.cores import default_workers
from ...machine.digests import file_sha256
from ...machine.files import parsed_json, read_table, whole_or_absent, write_json
from ...machine.progress import reporter
from ..contract import Encoder, Sampling
from ..datasets.base import Source
from ..pipeline.pool import Pool
from ..pipeline.worker import READY, Job, Outcome, Setup

_PART = 32  # clips of a file


@dataclass(frozen=True)
class ClipStore:
    """Prepared frames of clips: each is uint8 [T, ..., S, S, 3]."""

    usable: np.ndarray
    """Which of the clips that were asked for could be read, bool [n]."""
    failed: Mapping[str, str]
    """Why each of the others could not, by clip id."""
    parts: Sequence[np.ndarray]
    """The frames of the usable clips, in order, in files that are read where they lie."""

    def __len__(self) -> int:
        return int(self.usable.sum())

    @property
    def steps(self) -> int:
        """The number T of frames, or windows, of a clip."""
        return int(self.parts[0].shape[1])

    def clip(self, row: int) -> np.ndarray:
        """The frames of one usable clip."""
        for part in self.parts:
            if row < len(part):
                return part[row]
            row -= len(part)
        raise IndexError(row)

    def take(self, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The frames [M, F, ...] of the clips ``rows`` [M] at their ``steps`` [M, F]."""
        return np.stack([self.clip(int(row))[at] for row, at in zip(rows, steps)])


def decode_clips(
    folder: Path,
    sources: Mapping[str, Source],
    encoder: Encoder,
    *,
    segments: int,
    workers: int | None,
    timeout: float,
) -> ClipStore:
    """The store of these clips, of which those that an interrupted call finished are not decoded again if undamaged.

    folder: where the frames are kept; it belongs to these clips and this encoder alone. Raises FsmmError where no clip
    can be read, or the disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ids = list(sources)
    groups = [ids[start : start + _PART] for start in range(0, len(ids), _PART)]
    waiting = [n for n in range(len(groups)) if not _is_whole(folder, n)]
    jobs = [Job(clip, sources[clip], (0,)) for n in waiting for clip in groups[n]]
    setup = Setup((encoder,), Sampling(segments=segments))
    with reporter("decoding") as shown, Pool(setup, jobs, workers or default_workers(), timeout) as pool:
        outcomes = pool.outcomes() if jobs else iter(())
        done = len(ids) - len(jobs)
        for n in waiting:
            found: dict[str, Outcome] = {}
            for clip in groups[n]:
                found[clip] = next(outcomes)[1]
                done += 1
                shown(done, len(ids))
            _keep(folder, n, found, len(ids))
    return _opened(folder, groups)


def _keep(folder: Path, number: int, found: Mapping[str, Outcome], clips: int) -> None:
    """Write a part: the frames first, then the record, whose presence says that the part is whole."""
    frames, failed = [], {}
    for clip, outcome in found.items():
        part = outcome.parts.get(0)
        if part is not None and part.state == READY:
            frames.append(part.value)
        else:
            failed[clip] = outcome.reason or (part.reason if part else "") or "it has no picture"
    digest = ""
    if frames:
        stacked = np.stack(frames)
        _check_room(folder, stacked.nbytes // len(frames) * clips, number)
        with whole_or_absent(folder / f"{number:05d}.npy") as temporary, open(temporary, "wb") as file:
            np.save(file, stacked)
        digest = file_sha256(folder / f"{number:05d}.npy")
    record = {"frames": len(frames), "failed": failed, "sha256": digest}
    write_json(_record(folder, number), with_check(record))


def _is_whole(folder: Path, number: int) -> bool:
    """Whether a part is there as it was written."""
    try:
        record = without_check(parsed_json(_record(folder, number).read_text("utf-8")))
        kept = folder / f"{number:05d}.npy"
        return not record["frames"] or file_sha256(kept) == record["sha256"]
    except (OSError, ValueError, AttributeError, KeyError):
        return False


def _check_room(folder: Path, needed: int, number: int) -> None:
    """Raise FsmmError before the first part where the disk has no room for all of them."""
    free = shutil.disk_usage(folder).free
    if number == 0 and needed > free:
        raise FsmmError(
            f"The decoded frames need {needed / 2**30:.1f} GiB in {str(folder)!r}, where {free / 2**30:.1f} GiB are "
            "free; give --out on another disk, fewer --segments, or fewer clips (--limit, --unlabelled-clips)."
        )


def _record(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def _opened(folder: Path, groups: Sequence[Sequence[str]]) -> ClipStore:
    failed: dict[str, Any] = {}
    parts = []
    for number in range(len(groups)):
        record = read_table(_record(folder, number), "record of decoded clips", error=FsmmError)
        failed |= record["failed"]
        if record["frames"]:
            parts.append(np.load(folder / f"{number:05d}.npy", mmap_mode="r"))
    ids = [clip for group in groups for clip in group]
    if not parts:
        first = f"{ids[0]!r}: {failed[ids[0]]}".rstrip(".")
        raise FsmmError(f"None of the {len(ids)} clips could be decoded; of the first, {first}.")
    return ClipStore(np.array([clip not in failed for clip in ids]), failed, parts)
