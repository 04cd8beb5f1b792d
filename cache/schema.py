"""The on-disk contract between the stages: names, versions, provenance, and where things lie.

    CACHE/<dataset>/catalog.h5
    CACHE/<dataset>/streams/<modality>/<encoder>/00000.h5 ...
    CACHE/<dataset>/failures.jsonl

docs/cache.md describes every dataset and attribute for readers that do not use fsmm.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import CacheError, UsageError, unknown

SCHEMA_VERSION = 1
MODALITIES = ("frame", "flow", "audio", "word", "sensor", "object")
BASE, VAL, NOVEL = "base", "val", "novel"
CLASS_SPLITS = (BASE, VAL, NOVEL)
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def check_name(kind: str, name: str) -> str:
    """A name that becomes part of a path: letters, digits, ``. _ + -``, so that it cannot leave its root."""
    if not _SAFE_NAME.fullmatch(name):
        raise UsageError(
            f"{kind} name {name!r} is not usable as a folder: use letters, digits, '.', '_', '+' and '-', "
            "beginning with a letter or digit."
        )
    return name


@dataclass(frozen=True, order=True)
class StreamName:
    """One modality through one encoder, written ``frame/openclip-vit-b-32``.

    >>> stream = StreamName.parse("frame/openclip-vit-b-32")
    >>> stream.modality, str(stream)
    ('frame', 'frame/openclip-vit-b-32')
    """

    modality: str
    encoder: str

    def __post_init__(self) -> None:
        if self.modality not in MODALITIES:
            raise unknown("modality", self.modality, MODALITIES)
        check_name("Encoder", self.encoder)

    @classmethod
    def parse(cls, text: str) -> StreamName:
        """From ``modality/encoder``. Raises UsageError for any other form."""
        modality, slash, encoder = text.partition("/")
        if not slash:
            raise UsageError(
                f"Stream {text!r} is not of the form modality/encoder, such as frame/efficientnet-lite0."
            )
        return cls(modality, encoder)

    def __str__(self) -> str:
        return f"{self.modality}/{self.encoder}"


@dataclass(frozen=True)
class Provenance:
    """What made a stream. Two shards of a stream must agree in all of it.

    axis: "clip" (a row is a clip) or "class" (a row is the words of one class; word streams).
    weights_sha256: of the weights file, "" for a classical descriptor.
    preprocessing, sampling: free text, compared as it stands.
    """

    encoder: str
    modality: str
    dim: int
    axis: str = "clip"
    dtype: str = "float16"
    weights: str = ""
    weights_sha256: str = ""
    preprocessing: str = ""
    sampling: str = ""
    fsmm_version: str = __version__
    schema: int = SCHEMA_VERSION
    extra: Mapping[str, str] = field(default_factory=dict)

    # A stream may be continued by a later release of fsmm as long as the schema and the encoder are the same.
    _NOT_COMPARED = ("fsmm_version",)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise CacheError(
                f"A shard's provenance cannot be read ({error}); run `fsmm cache verify`."
            ) from None

    def differences(self, other: Provenance) -> list[str]:
        """Sentences such as ``weights_sha256 is 'ab' here and 'cd' there``; empty when the two may share a stream.

        >>> eight, four = (Provenance("net", "frame", 512, sampling=f"{n} segments") for n in (8, 4))
        >>> eight.differences(four)
        ["sampling is '8 segments' here and '4 segments' there"]
        """
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{key} is {mine[key]!r} here and {theirs[key]!r} there"
            for key in mine
            if key not in self._NOT_COMPARED and mine[key] != theirs[key]
        ]


def default_cache() -> Path:
    """``FSMM_CACHE``, else ``fsmm-cache`` in the user's cache directory."""
    if given := os.environ.get("FSMM_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fsmm-cache"


def stream_folder(dataset_folder: Path, stream: StreamName) -> Path:
    """The folder that holds the shards of a stream; it need not exist."""
    return dataset_folder / "streams" / stream.modality / stream.encoder


def list_datasets(cache: Path) -> list[str]:
    """Names of the datasets in a cache: every folder that holds a catalog."""
    if not cache.is_dir():
        return []
    return sorted(p.parent.name for p in cache.glob("*/catalog.h5"))


def dataset_folder(cache: Path, dataset: str | None) -> Path:
    """The folder of ``dataset``; with None, of the only dataset there.

    Raises UsageError where there is no such dataset, or the choice is not clear.
    """
    known = list_datasets(cache)
    if dataset is None:
        if len(known) == 1:
            return cache / known[0]
        if not known:
            raise CacheError(
                f"There is no dataset in the cache {str(cache)!r}; run `fsmm extract --dataset demo` or "
                "`fsmm cache import` first, or point --cache (or FSMM_CACHE) to another folder."
            )
        raise UsageError(f"The cache holds several datasets; name one with --dataset: {', '.join(known)}.")
    check_name("Dataset", dataset)
    if dataset not in known:
        held = ", ".join(known) or "none"
        raise CacheError(
            f"Dataset {dataset!r} is not in the cache {str(cache)!r} (it holds: {held}); extract or import it first."
        )
    return cache / dataset


def list_streams(folder: Path) -> list[StreamName]:
    """Streams of a dataset folder that have at least one shard, sorted."""
    found = {
        StreamName(p.parent.parent.name, p.parent.name)
        for p in (folder / "streams").glob("*/*/*.h5")
        if p.stem.isdecimal() and p.parent.parent.name in MODALITIES and _SAFE_NAME.fullmatch(p.parent.name)
    }
    return sorted(found)


def shard_paths(dataset_folder: Path, stream: StreamName) -> list[Path]:
    """The shards of a stream in the order of their numbers."""
    found = [p for p in stream_folder(dataset_folder, stream).glob("*.h5") if p.stem.isdecimal()]
    return sorted(found, key=lambda p: int(p.stem))
