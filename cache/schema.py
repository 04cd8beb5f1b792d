"""The on-disk contract between the stages: names, versions, provenance, and the layout of folders.

    CACHE/<dataset>/catalog.h5
    CACHE/<dataset>/streams/<modality>/<encoder>/00000.h5 ...
    CACHE/<dataset>/failures.jsonl, missing.json and thumbnails.sqlite

docs/cache.md describes every HDF5 dataset and attribute for readers that do not use fsmm.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import CacheError, UsageError, brief, listed
from ..machine.files import parsed_json

SCHEMA_VERSION = 2  # The schema of a data set is that of its catalog.
OLDER_SCHEMAS = (1,)  # Data sets of these are read, but changed only after `fsmm cache upgrade`.
SHARD_SCHEMA = 1
SCORE, HASH = "score", "hash"
"""The modalities of class scores and of picture hashes."""
NO_FEATURES = (SCORE, HASH)
"""The modalities that evaluations take only where they are named."""
MODALITIES = (
    "frame",
    "flow",
    "audio",
    "word",
    "sensor",
    "object",
)  # Data may bring others: depth, view1, ...
PASSPORT = "passport.h5"  # Beside a stream's shards: the features of built-in clips (extract/passport.py).
BASE, VAL, NOVEL = "base", "val", "novel"
CLASS_SPLITS = (BASE, VAL, NOVEL)
OWN_CLIPS = "own-clips"
"""The data set of the clips that `fsmm fit` and `fsmm predict` were given by their paths; it has no labels."""
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


def check_name(kind: str, name: str) -> str:
    """Return ``name`` if it is safe as part of a path: letters, digits and ``. _ + -``, so that it stays in its root.

    Raises UsageError otherwise; ``kind`` is the word for what is named.
    """
    if not _SAFE_NAME.fullmatch(name):
        raise UsageError(
            f"{kind} name {name!r} is not usable as a folder: use letters, digits, '.', '_', '+' and '-', "
            "beginning with a letter or digit."
        )
    return name


@dataclass(frozen=True, order=True)
class StreamName:
    """One modality through one encoder, written ``frame/openclip-vit-b-32``; a modality may have any name.

    >>> stream = StreamName.parse("frame/openclip-vit-b-32")
    >>> stream.modality, str(stream)
    ('frame', 'frame/openclip-vit-b-32')
    """

    modality: str
    encoder: str

    def __post_init__(self) -> None:
        check_name("Modality", self.modality)
        check_name("Encoder", self.encoder)

    @classmethod
    def parse(cls, text: str) -> StreamName:
        """The stream named ``modality/encoder``. Raises UsageError for any other form."""
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
    """The origin of a stream's features. Two shards of a stream must agree in every field but ``fsmm_version``."""

    encoder: str
    """The name of the encoder."""
    modality: str
    """The modality that the encoder reads."""
    dim: int
    """The width D of the features."""
    axis: str = "clip"
    """The kind of a row: "clip", or "class" where a row is the words of one class (word streams)."""
    dtype: str = "float16"
    """The type in which the features are stored."""
    weights: str = ""
    """The name of the weights, "" for a classical descriptor."""
    weights_sha256: str = ""
    """The SHA-256 of the weights file, "" for a classical descriptor."""
    preprocessing: str = ""
    """How the input is prepared: free text, compared character by character."""
    sampling: str = ""
    """How the steps are sampled: free text, compared character by character."""
    fsmm_version: str = __version__
    """The version of fsmm that made the features."""
    schema: int = SHARD_SCHEMA
    """The version of the schema of shards."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Further facts about the origin, by name."""

    # A stream may be continued by a later release of fsmm as long as the schema and the encoder are the same.
    _NOT_COMPARED = ("fsmm_version",)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        try:
            values: dict[str, Any] = parsed_json(text)
            found = cls(**values)
            found._check_types()
            return found
        except (TypeError, ValueError) as error:
            raise CacheError(
                f"A shard's provenance cannot be read ({error}); run `fsmm cache verify`."
            ) from None

    def _check_types(self) -> None:
        """Raise TypeError where a value read from a file is not what the field holds."""
        texts = {key: value for key, value in asdict(self).items() if key not in ("dim", "schema", "extra")}
        wrong = [key for key, value in texts.items() if not isinstance(value, str)]
        wrong += [key for key in ("dim", "schema") if not isinstance(getattr(self, key), int)]
        if not isinstance(self.extra, dict) or not all(isinstance(v, str) for v in self.extra.values()):
            wrong.append("extra")
        if wrong:
            raise TypeError(f"its {wrong[0]} is of another type than it should be")

    def differences(self, other: Provenance) -> list[str]:
        """Clauses such as ``weights_sha256 is 'ab' here and 'cd' there``; empty when the two may share a stream.

        >>> eight, four = (Provenance("net", "frame", 512, sampling=f"{n} segments") for n in (8, 4))
        >>> eight.differences(four)
        ["sampling is '8 segments' here and '4 segments' there"]
        """
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{key} is {brief(mine[key])} here and {brief(theirs[key])} there"
            for key in mine
            if key not in self._NOT_COMPARED and mine[key] != theirs[key]
        ]


def default_cache() -> Path:
    """The folder named by ``FSMM_CACHE``, or else ``fsmm-cache`` in the user's cache directory."""
    if given := os.environ.get("FSMM_CACHE"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "fsmm-cache"


def stream_folder(dataset_folder: Path, stream: StreamName) -> Path:
    """The folder of a stream's shards; it need not exist."""
    return dataset_folder / "streams" / stream.modality / stream.encoder


def list_datasets(cache: Path) -> list[str]:
    """The names of the data sets in a cache: every folder that holds a catalog is one."""
    if not cache.is_dir():
        return []
    return sorted(p.parent.name for p in cache.glob("*/catalog.h5"))


def dataset_folder(cache: Path, dataset: str | None) -> Path:
    """The folder of the data set ``dataset``; None stands for the only data set of the cache.

    The clips that models were fitted on and asked about are not counted where there is another data set.
    Raises CacheError where there is no such data set, UsageError where None could mean several or the name is no
    folder's name.
    """
    names = list_datasets(cache)
    if dataset is None:
        meant = [name for name in names if name != OWN_CLIPS] or names
        if len(meant) == 1:
            return cache / meant[0]
        if not names:
            raise _no_dataset(cache)
        raise UsageError(f"The cache holds several datasets; name one with --dataset: {listed(names)}.")
    check_name("Dataset", dataset)
    if dataset not in names:
        raise CacheError(
            f"Dataset {dataset!r} is not in the cache {str(cache)!r} (it holds: {listed(names)}); "
            "extract or import it first."
        )
    return cache / dataset


def dataset_folders(cache: Path, dataset: str | None = None, *, may_be_empty: bool = False) -> list[Path]:
    """The folder of the data set ``dataset``, or the folders of all data sets of the cache.

    may_be_empty: whether a cache without a data set gives no folder, and is not refused.
    Raises CacheError where there is no such data set.
    """
    if dataset is not None:
        return [dataset_folder(cache, dataset)]
    folders = [cache / name for name in list_datasets(cache)]
    if not folders and not may_be_empty:
        raise _no_dataset(cache)
    return folders


def _no_dataset(cache: Path) -> CacheError:
    return CacheError(
        f"There is no dataset in the cache {str(cache)!r}; run `fsmm extract --dataset demo` or "
        "`fsmm cache import` first, or point --cache (or FSMM_CACHE) to another folder."
    )


def list_streams(folder: Path) -> list[StreamName]:
    """The streams of a data set's folder that have at least one shard, sorted."""
    found = {
        StreamName(p.parent.name, p.name)
        for p in (folder / "streams").glob("*/*")
        if _SAFE_NAME.fullmatch(p.parent.name) and _SAFE_NAME.fullmatch(p.name) and any(_shard_names(p))
    }
    return sorted(found)


def shard_paths(dataset_folder: Path, stream: StreamName) -> list[Path]:
    """The shards of a stream in the order of their numbers; a pipe or device of a shard's name is none."""
    folder = stream_folder(dataset_folder, stream)
    return [folder / name for name in sorted(_shard_names(folder), key=lambda name: int(name[:-3]))]


def _shard_names(folder: Path) -> Iterator[str]:
    """The names of the shards in a folder, in any order; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            yield from (
                e.name for e in entries if e.name.endswith(".h5") and e.name[:-3].isdecimal() and e.is_file()
            )
    except (FileNotFoundError, NotADirectoryError):
        return
