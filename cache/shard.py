"""One shard: the features of some clips through one encoder, in one file that is whole or absent.

bytes 0..511   the seal, see header.py
attributes     kind, schema, dataset, provenance (JSON), written (log of the run that wrote the shard, JSON),
               provenance_check, facts_check (uint64; BLAKE2b-64, so that a repair knows whether to trust them)
features       [sum of T, D], contiguous, so that it can be memory-mapped
offset         int64 [n+1]; clip i owns rows offset[i]:offset[i+1]
key            n clip ids (or "label set/class name" where provenance.axis is "class")
present        bool [n]; an absent modality owns no rows
check          uint64 [n]; BLAKE2b-64 of key, presence, shape and feature bytes
facts/<name>   [n] facts that decoding found about the source (see catalog.FACTS)
times          float32 [sum of T], the second of the middle of each step, NaN where it is unknown (see times.py); only
               where one is known, with the attribute times_check
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import CacheError
from ..machine.files import parsed_json
from .blocks import FeatureBlock, damaged_shard
from .catalog import FACTS, check_key
from .hdf5 import own_object, refuse_overlap, stored_array, stored_values
from .header import READ_SCHEMAS, SHARD_KIND, check_schema, empty_claim, write_sealed
from .schema import Provenance
from .times import joined_times, refuse_times, right_times, times_check

KIND = SHARD_KIND


@dataclass
class Shard:
    """A shard of n rows in memory."""

    dataset: str
    """The name of the data set."""
    provenance: Provenance
    """The origin of the features."""
    key: list[str]
    """The key of each row: a clip id, or "label set/class name" in a word stream."""
    features: np.ndarray
    """The features of all rows, [sum of T, D]."""
    offset: np.ndarray
    """int64 [n+1]; row i owns the features offset[i]:offset[i+1]."""
    present: np.ndarray
    """bool [n]; an absent modality owns no features."""
    check: np.ndarray
    """uint64 [n], the checksum of each row (see clip_check)."""
    facts: dict[str, np.ndarray]
    """An array [n] for each fact about the sources (see catalog.FACTS)."""
    written: dict[str, object]
    """The log of the run that wrote the shard."""
    times: np.ndarray | None = None
    """The second of the middle of each step, float32 [sum of T], NaN where it is unknown; None where none is known."""

    def __len__(self) -> int:
        return len(self.key)

    def clip(self, i: int) -> np.ndarray:
        """The features [T, D] of row i; T = 0 where the modality is absent."""
        return self.features[self.offset[i] : self.offset[i + 1]]

    def clip_times(self, i: int) -> np.ndarray | None:
        """The seconds [T] of the steps of row i; None where they are not known."""
        if self.times is None:
            return None
        found = self.times[self.offset[i] : self.offset[i + 1]]
        return None if np.isnan(found).any() or not len(found) else found

    def is_right(self, i: int) -> bool:
        """Whether the checksum of row i says that its bytes are the ones that were written."""
        return clip_check(self.key[i], bool(self.present[i]), self.clip(i)) == int(self.check[i])

    def take(self, rows: Sequence[int]) -> Shard:
        """A shard of a selection of the rows, in that order."""
        index = np.asarray(rows, np.int64)
        parts = [self.clip(i) for i in index]
        lengths = np.array([len(p) for p in parts], np.int64)
        features = np.concatenate(parts) if parts else self.features[:0]
        return Shard(
            dataset=self.dataset,
            provenance=self.provenance,
            key=[self.key[i] for i in index],
            features=features,
            offset=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            present=self.present[index],
            check=self.check[index],
            facts={name: values[index] for name, values in self.facts.items()},
            written=self.written,
            times=joined_times([self.clip_times(i) for i in index], lengths.tolist()),
        )


def clip_check(key: str, present: bool, features: np.ndarray) -> int:
    """The checksum of one row: BLAKE2b, 8 bytes, over its key, presence, shape, dtype and feature bytes."""
    if key.isascii() and key.isprintable() and '"' not in key and "\\" not in key and features.ndim == 2:
        # The same text as below, in a third of the time: a start-up checks hundreds of thousands of clips.
        steps, dim = features.shape
        text = f'["{key}", {"true" if present else "false"}, {steps}, {dim}, "{features.dtype.str}"]'
    else:
        text = json.dumps([key, bool(present), *features.shape, features.dtype.str])
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8)
    digest.update(np.ascontiguousarray(features).data)
    return int.from_bytes(digest.digest(), "little")


def provenance_check(dataset: str, provenance: Provenance) -> np.uint64:
    """The checksum of a shard's data set and provenance, so that these can be trusted despite damage elsewhere."""
    text = json.dumps([dataset, provenance.to_json()]).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def facts_check(facts: Mapping[str, np.ndarray]) -> np.uint64:
    """The checksum of the names, types and values of a shard's facts."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(facts):
        digest.update(json.dumps([name, facts[name].dtype.str, *facts[name].shape]).encode())
        digest.update(facts[name].tobytes())
    return np.uint64(int.from_bytes(digest.digest(), "little"))


def build_shard(
    dataset: str,
    provenance: Provenance,
    rows: Sequence[tuple[str, np.ndarray | None, Mapping[str, object]]],
    written: Mapping[str, object] | None = None,
    times: Sequence[np.ndarray | None] | None = None,
) -> Shard:
    """The shard of (key, features [T, D] or None where absent, facts) rows, cast to the provenance's dtype.

    times: the seconds [T] of each row's steps, None where they are not known.
    Raises CacheError where features have another width or do not stay finite in that dtype.
    """
    dtype = np.dtype(provenance.dtype)
    empty = np.zeros((0, provenance.dim), dtype)
    parts = [empty if x is None else storable(key, x, provenance) for key, x, _ in rows]
    lengths = np.array([len(p) for p in parts], np.int64)
    present = np.array([x is not None for _, x, _ in rows], bool)
    checks = [
        clip_check(key, bool(has_features), part)
        for (key, _, _), has_features, part in zip(rows, present, parts)
    ]
    return Shard(
        dataset=dataset,
        provenance=provenance,
        key=[check_key(key) for key, _, _ in rows],
        features=np.concatenate([empty, *parts]),
        offset=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        present=present,
        check=np.array(checks, np.uint64),
        facts={
            name: np.array([facts.get(name, missing) for _, _, facts in rows], dtype)
            for name, (dtype, missing) in FACTS.items()
        },
        written=dict(written or {}),
        times=joined_times(times or [None] * len(rows), lengths.tolist()),
    )


def storable(key: str, features: np.ndarray, provenance: Provenance) -> np.ndarray:
    """The features as they will be stored, in the provenance's dtype.

    Raises CacheError for a wrong shape, and for values that overflow the dtype or that it rounds away.
    """
    if features.ndim != 2 or features.shape[1] != provenance.dim or not len(features):
        raise CacheError(
            f"Features of {key!r} have shape {list(features.shape)}; "
            f"{provenance.modality}/{provenance.encoder} stores [T, {provenance.dim}] with T at least 1."
        )
    with np.errstate(over="ignore", under="ignore"):
        cast = np.ascontiguousarray(features, np.dtype(provenance.dtype))
    if cast.dtype.kind != "f":
        return cast
    if not np.isfinite(cast).all():
        raise CacheError(
            f"Features of {key!r} are not finite as {provenance.dtype}; {_remedy_of_dtype(provenance.dtype)}."
        )
    if _rounds_away(features, cast):
        largest = float(np.abs(features.astype(np.float64)).max())
        raise CacheError(
            f"Features of {key!r} are too small for {provenance.dtype}, which rounds them to zero or nearly so (the "
            f"largest is {largest:.3g}); {_remedy_of_dtype(provenance.dtype)}."
        )
    return cast


_LOSS = 0.01  # Rounding without underflow moves float16 features by a two-thousandth of their length at most.


def _rounds_away(features: np.ndarray, cast: np.ndarray) -> bool:
    """Whether ``cast`` [T, D] differs from the finite ``features`` [T, D] by more than a hundredth of their length."""
    underflow = float(np.finfo(cast.dtype).smallest_subnormal) / 2
    largest = float(np.abs(cast).max(initial=0))
    if (
        underflow * np.sqrt(cast.size) < 0.9 * _LOSS * largest
    ):  # Underflow moves each number by no more than this.
        return False
    exact = features.astype(np.float64)
    scale = np.abs(exact).max(initial=0)
    if not scale:
        return False
    exact = exact / scale  # The squares of very small numbers would themselves underflow.
    return bool(np.linalg.norm(cast.astype(np.float64) / scale - exact) > _LOSS * np.linalg.norm(exact))


def _remedy_of_dtype(dtype: str) -> str:
    if dtype == "float16":
        return "store float32 ('dtype': 'float32' in a mapping, --dtype float32 in an extraction)"
    return "check them, or scale them ('scale' in a mapping)"


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard whole or not at all. Raises CacheError where it cannot be written."""
    write_sealed(path, KIND, lambda file: _fill(file, shard))


def _fill(file: h5py.File, shard: Shard) -> None:
    file.attrs.update(
        kind=KIND,
        schema=READ_SCHEMAS[KIND][0],
        dataset=shard.dataset,
        provenance=shard.provenance.to_json(),
        written=json.dumps(shard.written, sort_keys=True),
        provenance_check=provenance_check(shard.dataset, shard.provenance),
        facts_check=facts_check(shard.facts),
    )
    keys = [key.encode("utf-8", "surrogateescape") for key in shard.key]
    width = max([len(key) for key in keys], default=1)
    file.create_dataset("features", data=shard.features)
    file.create_dataset("offset", data=shard.offset)
    file.create_dataset("key", data=np.array(keys, h5py.string_dtype("utf-8", width)))
    file.create_dataset("present", data=shard.present)
    file.create_dataset("check", data=shard.check)
    facts = file.create_group("facts")
    for name, values in shard.facts.items():
        facts.create_dataset(name, data=values)
    if shard.times is not None:
        file.create_dataset("times", data=shard.times)
        file.attrs["times_check"] = times_check(shard.times)


def read_shard(path: Path, features: bool = True, facts: bool = True, times: bool = True) -> Shard:
    """Read a shard; ``features=False`` leaves out its features ([0, D]), the others its facts and times.

    Checksums of features are not checked (see verify). Raises CacheError where the file is not a whole shard of this
    schema.
    """
    try:
        if claim := empty_claim(path):
            raise ValueError(claim)
        with h5py.File(path, "r") as file:
            check_schema(file, path, KIND)
            data = stored_array(file, "features")
            others = ["offset", "key", "present", "check", *(["times"] if "times" in file else [])]
            refuse_overlap([data, *(stored_array(file, name) for name in others)])
            shard = Shard(
                dataset=str(file.attrs["dataset"]),
                provenance=Provenance.from_json(str(file.attrs["provenance"])),
                key=[key.decode("utf-8", "surrogateescape") for key in stored_values(file, "key").tolist()],
                features=data[()] if features else np.zeros((0, data.shape[1]), data.dtype),
                offset=stored_values(file, "offset"),
                present=stored_values(file, "present"),
                check=stored_values(file, "check"),
                facts=_read_facts(file) if facts else {},
                written=parsed_json(str(file.attrs["written"])),
                times=right_times(file) if times else None,
            )
            if wrong := _inconsistency(shard, data.shape):
                raise damaged_shard(path, wrong)
            return shard
    except CacheError:
        raise
    except (
        Exception
    ) as error:  # Damaged HDF5 makes h5py raise nearly anything: OSError, KeyError, TypeError, ...
        raise damaged_shard(path, error) from None


def _read_facts(file: h5py.File) -> dict[str, np.ndarray]:
    group = own_object(file, "facts")
    return {name: stored_values(group, name) for name in group}


def _inconsistency(shard: Shard, shape: tuple[int, ...]) -> str:
    """A phrase that names the first thing in a shard that does not fit; "" where everything fits."""
    n, offset = len(shard.key), shard.offset
    if len(shape) != 2 or shape[1] != shard.provenance.dim:
        return f"its features have shape {list(shape)}, not [sum of T, {shard.provenance.dim}]"
    if shard.features.dtype.kind != "f" or np.dtype(shard.provenance.dtype) != shard.features.dtype:
        return f"its features are {shard.features.dtype}, not {shard.provenance.dtype}"
    if (offset.dtype.kind, shard.present.dtype.kind, shard.check.dtype.kind) != ("i", "b", "u"):
        return "its arrays have other types than they should"
    if any(values.shape != (n,) for values in shard.facts.values()):
        return "its facts do not match its rows"
    if offset.shape != (n + 1,) or shard.present.shape != (n,) or shard.check.shape != (n,):
        return "its arrays differ in length"
    if offset[0] != 0 or offset[-1] != shape[0] or (np.diff(offset) < 0).any():
        return "its offsets do not match its features"
    if ((np.diff(offset) > 0) != shard.present).any():
        return "presence does not match its features"
    return "" if shard.times is None else refuse_times(shard.times, shape[0])


def damaged_clips(path: Path, keys: Sequence[str]) -> CacheError:
    """The error to raise where the clips ``keys`` of a stream fail their checksum; the first lies in shard ``path``."""
    more = f" and {len(keys) - 1} more of its stream" if len(keys) > 1 else ""
    return damaged_shard(path, f"clip {keys[0]!r}{more} has other bytes than were written")


def feature_block(path: Path) -> FeatureBlock:
    """Where the features of a shard lie. Raises CacheError for a shard that is damaged."""
    try:
        with h5py.File(path, "r") as file:
            data = stored_array(file, "features")
            begin = data.id.get_offset()
            if data.ndim != 2 or (begin is None and data.size):
                raise ValueError("its features are not one block of the file")
            return FeatureBlock(path, begin or 0, data.shape[0], data.shape[1], data.dtype)
    except Exception as error:  # Damaged HDF5 makes h5py raise nearly anything.
        raise damaged_shard(path, error) from None
