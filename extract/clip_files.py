"""The files of a clip: their state, by which a change is noticed, and their digest, by which a clip is recognised."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..cache.origin import UNSEEN
from ..machine.cores import default_workers
from .datasets.base import Source


class State(NamedTuple):
    """The state of a clip's files."""

    size: int
    """The bytes of all files together, or UNSEEN where one is not there."""
    mtime_ns: int
    """The latest time of change, or UNSEEN."""
    part: str
    """The part of the files that the clip is, such as "#t=12.5,20"; "" for all of them. See Source.part."""


NOWHERE = State(UNSEEN, UNSEEN, "")


def files_of(source: Source) -> list[Path]:
    """The files of a clip: its video, or its images in order, then separate sound, then time series."""
    pictures: Sequence[Path] = (source.video,) if source.video is not None else source.images
    sound = [source.audio] if source.audio is not None else []
    return [*pictures, *sound, *(series.path for series in source.series)]


def state_of(source: Source) -> State:
    """The state of a clip's files now."""
    try:
        facts = [os.stat(path) for path in files_of(source)]
    except (OSError, ValueError):
        return NOWHERE
    if not facts:
        return NOWHERE
    return State(sum(fact.st_size for fact in facts), max(fact.st_mtime_ns for fact in facts), source.part)


def sha256_of(paths: Iterable[Path]) -> str:
    """Hex digest of the files' bytes, one after the other; "" if one cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest()


def digest_of(source: Source) -> str:
    """Hex digest of a clip: of its files' bytes, and of the part that it is of them; "" if one cannot be read."""
    return source.digest(sha256_of(files_of(source)))


def digests(sources: Mapping[str, Source]) -> dict[str, str]:
    """The digest of each clip, by clip; "" where its files cannot be read.

    Files that several clips are parts of are read once, and several files at once.
    """
    files = {clip: tuple(files_of(source)) for clip, source in sources.items()}
    each = list(dict.fromkeys(files.values()))
    with ThreadPoolExecutor(min(default_workers(), max(len(each), 1))) as pool:
        sha256 = dict(zip(each, pool.map(sha256_of, each)))
    return {clip: source.digest(sha256[files[clip]]) for clip, source in sources.items()}


def is_deleted(path: Path) -> bool:
    """Whether there is certainly no file at a path; false where that cannot be told, as in an unreadable folder."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False
