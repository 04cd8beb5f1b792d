"""The index of a stream: which rows it holds, and where in which shard each lies, read as one file.

A stream of hundreds of thousands of clips has thousands of shards, and opening each takes a millisecond. Beside the
shards of a large stream lies therefore ``.index``, which is derived from them: whoever reads the stream makes it where
it is absent, and reads anew each shard whose size, time of change or seal is not the one that the index has noted.
Nothing depends on it, so that it may be deleted at any time.

bytes 0..511   the seal, see header.py
name, size, mtime, seal, origin, begin, count, steps   [s] for each shard: its file's name, size, time of change (ns)
               and first line, the number of its provenance, the byte at which its features begin, its rows, and the
               sum of their steps
origins        the provenances (JSON), key the keys of all rows, each a block of UTF-8 texts that NUL separates
length, check  [n] for each row: its steps (0 where the modality is absent) and its checksum (see shard.clip_check)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path

import h5py
import numpy as np

from ..errors import CacheError
from .blocks import FeatureBlock
from .hdf5 import stored_values
from .header import (
    HEADER_BYTES,
    INDEX_KIND,
    READ_SCHEMAS,
    check_schema,
    header_is_right,
    sealed_line,
    write_sealed,
)
from .schema import Provenance, StreamName, shard_paths, stream_folder
from .shard import Shard, feature_block, read_shard

NAME = ".index"
# Fewer shards are read as they are.
_WORTH = 16


@dataclass(frozen=True)
class StreamIndex:
    """The n rows of a stream in the order of its s shards."""

    paths: list[Path]
    """The shards."""
    origins: list[Provenance]
    """The provenance of each shard [s]; that of a stream in order is one and the same."""
    blocks: list[FeatureBlock]
    """Where the features of each shard [s] lie."""
    key: list[str]
    """The key of each row."""
    shard: np.ndarray
    """int64 [n], the shard of each row."""
    start: np.ndarray
    """int64 [n], the row of the shard's features at which each row begins."""
    length: np.ndarray
    """int64 [n], the number of steps of each row; 0 where the modality is absent."""
    check: np.ndarray
    """uint64 [n], the checksum of each row."""

    @property
    def present(self) -> np.ndarray:
        """Whether each row has features, bool [n]."""
        return self.length > 0

    def mixture(self) -> tuple[Path, list[str]] | None:
        """The first shard of another origin than the first one, and the differences; None where there is none."""
        firsts = {id(origin): (path, origin) for path, origin in reversed([*zip(self.paths, self.origins)])}
        for path, origin in reversed(firsts.values()):
            if differ := self.origins[0].differences(origin):
                return path, differ
        return None

    def positions(self, keys: Sequence[str]) -> np.ndarray:
        """The position of each row's key in ``keys``, int64 [n]; -1 where it is not among them."""
        if self.key == keys:
            return np.arange(len(self.key))
        position = {key: i for i, key in enumerate(keys)}
        return np.fromiter(map(position.get, self.key, repeat(-1)), np.int64, len(self.key))


def stream_index(dataset_folder: Path, stream: StreamName) -> StreamIndex:
    """The index of a stream; its file is made or renewed where that pays and the folder can be written.

    Raises CacheError for a damaged shard that the index does not know.
    """
    paths = shard_paths(dataset_folder, stream)
    place = stream_folder(dataset_folder, stream) / NAME
    known = {part.name: part for part in _stored_parts(place)} if len(paths) >= _WORTH else {}
    parts, fresh = [], True
    for path in paths:
        part = known.pop(path.name, None)
        if part is None or part.state != _state(path):
            part, fresh = _part(path), False
        parts.append(part)
    if len(paths) >= _WORTH and (known or not fresh):
        with suppress(CacheError):  # A cache that cannot be written is read without an index.
            write_sealed(place, INDEX_KIND, partial(_fill, parts=parts))
    return _joined(paths, parts)


def disagreement(folder: Path, shards: Mapping[Path, Shard]) -> str:
    """A sentence about a stream's index that tells anything else of these shards than they do; "" where it agrees.

    shards: whole shards by path; their features are not looked at.
    """
    for part in _stored_parts(folder / NAME):
        shard = shards.get(folder / part.name)
        if shard is None or part.state != _state(folder / part.name):
            continue
        agrees = (
            part.key == shard.key
            and np.array_equal(part.length, np.diff(shard.offset))
            and np.array_equal(part.check, shard.check)
            and part.begin == feature_block(folder / part.name).begin
            and not Provenance.from_json(part.origin).differences(shard.provenance)
        )
        if not agrees:
            return f"The index of the stream says other things of {part.name} than the shard does."
    return ""


def renew_index(dataset_folder: Path, stream: StreamName) -> None:
    """Bring the index file of a large stream up to date. Raises CacheError for a damaged shard."""
    if len(shard_paths(dataset_folder, stream)) >= _WORTH:
        stream_index(dataset_folder, stream)


@dataclass(frozen=True)
class _State:
    """What tells one content of a shard's file from another: its size, time of change and sealed first line."""

    size: int
    mtime: int
    seal: bytes


@dataclass(frozen=True)
class _Part:
    """The rows of one shard."""

    name: str
    state: _State
    origin: str
    begin: int
    key: list[str]
    length: np.ndarray
    check: np.ndarray


def _state(path: Path) -> _State:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            facts, head = os.fstat(handle), os.read(handle, HEADER_BYTES)
        finally:
            os.close(handle)
    except OSError as error:
        raise CacheError(f"Shard {str(path)!r} cannot be read ({error.strerror or error}).") from None
    return _State(facts.st_size, facts.st_mtime_ns, sealed_line(head))


def _part(path: Path) -> _Part:
    """The rows of a shard, read from the shard."""
    state = _state(path)  # The state comes first: a file that is replaced meanwhile is then read again.
    shard = read_shard(path, features=False, facts=False, times=False)
    begin = feature_block(path).begin
    return _Part(
        name=path.name,
        state=state,
        origin=shard.provenance.to_json(),
        begin=begin,
        key=shard.key,
        length=np.diff(shard.offset),
        check=shard.check,
    )


def _joined(paths: Sequence[Path], parts: Sequence[_Part]) -> StreamIndex:
    origins = {origin: Provenance.from_json(origin) for origin in {part.origin for part in parts}}
    lengths = [part.length for part in parts]
    blocks = []
    for path, part in zip(paths, parts, strict=True):
        origin = origins[part.origin]
        rows = int(part.length.sum())
        blocks.append(FeatureBlock(path, part.begin, rows, origin.dim, np.dtype(origin.dtype)))
    none = np.zeros(0, np.int64)
    return StreamIndex(
        paths=list(paths),
        origins=[origins[part.origin] for part in parts],
        blocks=blocks,
        key=[key for part in parts for key in part.key],
        shard=np.repeat(np.arange(len(parts)), [len(part.key) for part in parts]),
        start=np.concatenate([none, *(np.cumsum(length) - length for length in lengths)]),
        length=np.concatenate([none, *lengths]),
        check=np.concatenate([none.astype(np.uint64), *(part.check for part in parts)]),
    )


def _fill(file: h5py.File, parts: Sequence[_Part]) -> None:
    origins = list(dict.fromkeys(part.origin for part in parts))
    number = {origin: i for i, origin in enumerate(origins)}
    file.attrs.update(kind=INDEX_KIND, schema=READ_SCHEMAS[INDEX_KIND][0])
    columns = {
        "name": np.array([part.name.encode() for part in parts]),
        "size": np.array([part.state.size for part in parts], np.int64),
        "mtime": np.array([part.state.mtime for part in parts], np.int64),
        "seal": np.array([part.state.seal for part in parts]),
        "origin": np.array([number[part.origin] for part in parts], np.int64),
        "begin": np.array([part.begin for part in parts], np.int64),
        "count": np.array([len(part.key) for part in parts], np.int64),
        "steps": np.array([part.length.sum() for part in parts], np.int64),
        "origins": _block(origins),
        "key": _block([key for part in parts for key in part.key]),
        "length": np.concatenate([part.length for part in parts]),
        "check": np.concatenate([part.check for part in parts]),
    }
    for name, values in columns.items():
        file.create_dataset(name, data=values)


def _stored_parts(place: Path) -> list[_Part]:
    """The parts of an index file; none where it is absent, damaged, of another schema, or does not fit itself."""
    try:
        if not place.is_file() or not header_is_right(place, INDEX_KIND):
            return []
        with h5py.File(place, "r") as file:
            check_schema(file, place, INDEX_KIND)
            return _parts_of({name: stored_values(file, name) for name in file})
    except Exception:  # Whoever crafts a file can seal it, too, and h5py raises nearly anything.
        return []


def _parts_of(columns: dict[str, np.ndarray]) -> list[_Part]:
    """The parts in the columns of an index. Raises KeyError, IndexError and ValueError where they do not fit."""
    origins, keys = _texts(columns["origins"]), _texts(columns["key"])
    length, check = columns["length"], columns["check"]
    if not len(keys) == len(length) == len(check) or length.min(initial=0) < 0:
        raise ValueError("its rows differ in number")
    made = [Provenance.from_json(origin) for origin in origins]
    widths = [origin.dim * np.dtype(origin.dtype).itemsize for origin in made]
    parts: list[_Part] = []
    end = 0
    names = ("name", "size", "mtime", "seal", "origin", "begin", "count", "steps")
    for name, size, mtime, seal, number, begin, count, steps in zip(
        *(columns[name].tolist() for name in names), strict=True
    ):
        rows = slice(end, end := end + count)
        if count < 0 or length[rows].sum() != steps or not 0 <= begin <= size - steps * widths[number]:
            raise ValueError("its shards do not fit their rows")
        parts.append(
            _Part(
                name=name.decode(),
                state=_State(size, mtime, seal),
                origin=origins[number],
                begin=begin,
                key=keys[rows],
                length=length[rows],
                check=check[rows],
            )
        )
    if end != len(keys):
        raise ValueError("its shards have other rows than it")
    return parts


def _block(texts: Sequence[str]) -> np.ndarray:
    """Texts without NUL as one block of bytes; each is followed by NUL."""
    joined = "".join(f"{text}\0" for text in texts)
    return np.frombuffer(joined.encode("utf-8", "surrogateescape"), np.uint8)


def _texts(block: np.ndarray) -> list[str]:
    return block.tobytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
