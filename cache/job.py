"""Where the shards of a shared extraction lie: each is a small cache of its own, until it is joined with the data set.

CACHE/<dataset>/job/plan.json                the plan (extract/shards/plan.py)
CACHE/<dataset>/job/shards/00003/            a finished shard: manifest.json, and a cache with some of the clips
CACHE/<dataset>/job/shards/.00003.work/      a shard that is being done, or that was left half done
CACHE/<dataset>/job/joined/00003.json        the manifest of a shard that is part of the data set's streams
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CacheError
from ..machine.files import parsed_json
from .schema import list_datasets

PLAN, MANIFEST = "plan.json", "manifest.json"


@dataclass(frozen=True)
class JobFolder:
    """The folder of the shared extraction of a data set; it need not exist."""

    dataset_folder: Path
    """The folder of the data set."""

    @property
    def root(self) -> Path:
        """The folder itself."""
        return self.dataset_folder / "job"

    @property
    def plan(self) -> Path:
        """The plan's file."""
        return self.root / PLAN

    @property
    def shards(self) -> Path:
        """The folder of the shards."""
        return self.root / "shards"

    def finished(self, number: int) -> Path:
        """The folder of a shard that is finished."""
        return self.shards / f"{number:05d}"

    def work(self, number: int) -> Path:
        """The folder of a shard that is being done."""
        return self.shards / f".{number:05d}.work"

    def lock(self, number: int) -> Path:
        """The file that the writer of a shard locks."""
        return self.shards / f".{number:05d}.lock"

    def joined(self, number: int) -> Path:
        """The manifest of a shard that has been joined with the data set."""
        return self.root / "joined" / f"{number:05d}.json"

    def all_finished(self) -> list[Path]:
        """The folders of the finished shards, in the order of their numbers."""
        found = [path for path in self.shards.glob("*") if path.name.isdecimal() and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name))

    def take_as_joined(self) -> None:
        """Keep the manifests of the finished shards, which have been joined, and delete their features."""
        for shard in self.all_finished():
            kept = self.joined(int(shard.name))
            kept.parent.mkdir(parents=True, exist_ok=True)
            if (shard / MANIFEST).is_file():
                shutil.copyfile(shard / MANIFEST, kept)
            shutil.rmtree(shard)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a finished shard holds."""

    shard: int
    """The number of the shard, from 1."""
    shards: int
    """The number of shards of the plan."""
    clips: int
    """The number of clips of the shard, without those that the data set held already."""
    failed: int = 0
    """The number of clips that could not be read or encoded."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """The number of failed clips by reason."""
    seconds: float = 0.0
    """The time that the shard took, in seconds."""
    streams: Mapping[str, str] = field(default_factory=dict)
    """The provenance of each stream, as JSON."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The SHA-256 of each file, by its path in the shard's folder."""


def read_manifest(path: Path) -> Manifest:
    """A shard's manifest. Raises CacheError where it cannot be read."""
    try:
        values: dict[str, Any] = parsed_json(path.read_text("utf-8"))
        return Manifest(**values)
    except (OSError, ValueError, TypeError) as error:
        raise CacheError(
            f"The manifest {str(path)!r} cannot be read ({error}); do the shard again."
        ) from None


def with_shards(cache: Path, dataset: str | None = None) -> list[Path]:
    """A cache, and the finished shards of its data sets, or of one of them, which are caches too."""
    names = list_datasets(cache) if dataset is None else [dataset]
    return [cache, *(shard for name in names for shard in JobFolder(cache / name).all_finished())]
