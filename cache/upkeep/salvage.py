"""Finding the rows of a damaged shard that can still be trusted, in a process of its own.

HDF5 may crash, loop for ever or ask for absurd amounts of memory on damaged metadata (a few flipped bits made 2.0.0
hang). A file whose seal is wrong is therefore opened only by ``python -m fsmm.cache.upkeep.salvage``, with limits on
time and memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np

from ...errors import CacheError
from ...machine.memory import limit_memory
from ...machine.orphans import end_with_parent
from ..catalog import FACTS
from ..hdf5 import own_object, stored_values
from ..header import empty_claim
from ..schema import Provenance
from ..shard import Shard, clip_check, facts_check, provenance_check, write_shard
from ..times import refuse_times, right_times

SECONDS = 120.0
SPARE_MEMORY = 2 << 30


@dataclass
class Salvage:
    """The verdict on a damaged shard."""

    rows: int = 0
    """The number of rows that the shard claims to have."""
    good: int = 0
    """The number of rows whose checksum is right."""
    bad: list[str] = field(default_factory=list)
    """The ids of the rows whose checksum is wrong, as the shard spells them."""
    origin: bool = False
    """Whether the provenance can be trusted."""
    facts: bool = False
    """Whether the facts can be trusted."""
    times: bool = True
    """Whether the times of the steps can be trusted, where there are any."""
    dropped: str = ""
    """The reason why nothing could be read, or why the good rows could not be written; "" otherwise."""


def salvage(path: Path, into: Path | None = None, origin: tuple[str, Provenance] | None = None) -> Salvage:
    """Judge which rows of a damaged shard can be trusted, and write them to ``into``, if given, as a whole shard.

    origin: the data set and provenance of the stream's healthy shards, used where the shard's own cannot be trusted.
    ``into`` is written only where at least one row and the provenance can be trusted. Damage raises no error.
    """
    origin_json = "" if origin is None else json.dumps([origin[0], origin[1].to_json()])
    if claim := empty_claim(path):
        return Salvage(dropped=claim)
    module = [sys.executable, "-m", "fsmm.cache.upkeep.salvage"]
    command = [*module, str(os.getpid()), str(path), str(into or ""), origin_json]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return Salvage(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Salvage(dropped="HDF5 does not come to an end reading it")
    except (IndexError, ValueError, TypeError):
        return Salvage(dropped="HDF5 fails on its metadata")


def read_damaged(path: Path, origin: tuple[str, Provenance] | None) -> tuple[Salvage, Shard | None]:
    """The verdict on a damaged shard that is opened in this process, and the shard of its good rows.

    The shard is None where no row is good or the provenance cannot be trusted.
    """
    try:
        with h5py.File(path, "r") as file:
            return _sift(file, origin)
    except Exception as error:  # Damaged HDF5 makes h5py raise nearly anything.
        return Salvage(dropped=str(error).split("\n")[0][:200] or type(error).__name__), None


def _sift(file: h5py.File, origin: tuple[str, Provenance] | None) -> tuple[Salvage, Shard | None]:
    features, offset, present, check, names = (
        stored_values(file, name) for name in ("features", "offset", "present", "check", "key")
    )
    keys = [key.decode("utf-8", "surrogateescape") for key in names.tolist()]
    rows = min(len(keys), len(present), len(check), len(offset) - 1)
    if features.ndim != 2:
        return Salvage(dropped="its features have lost their shape"), None
    good = [
        i
        for i in range(rows)
        if _row_is_good(i=i, keys=keys, features=features, offset=offset, present=present, check=check)
    ]
    bad = [keys[i] for i in sorted(set(range(rows)) - set(good))]
    dataset, provenance, origin_trusted = _origin(file, features, origin)
    facts, facts_right = _facts(file, len(keys))
    times, times_right = _times(file, len(features))
    verdict = Salvage(
        rows=len(keys),
        good=len(good),
        bad=bad,
        origin=origin_trusted,
        facts=facts_right,
        times=times_right,
    )
    if not good or provenance is None:
        return verdict, None
    # Only rows that were checked are sliced below, so damaged offsets of other rows do no harm.
    whole = Shard(
        dataset=dataset,
        provenance=provenance,
        key=keys,
        features=features,
        offset=offset,
        present=present,
        check=check,
        facts=facts,
        written={"repaired": True},
        times=times,
    )
    return verdict, whole.take(good)


def _row_is_good(
    i: int, keys: list[str], features: np.ndarray, offset: np.ndarray, present: np.ndarray, check: np.ndarray
) -> bool:
    start, end = int(offset[i]), int(offset[i + 1])
    if not 0 <= start <= end <= len(features) or (end > start) != bool(present[i]):
        return False
    return clip_check(keys[i], bool(present[i]), features[start:end]) == int(check[i])


def _origin(
    file: h5py.File, features: np.ndarray, healthy: tuple[str, Provenance] | None
) -> tuple[str, Provenance | None, bool]:
    with contextlib.suppress(Exception):
        dataset = str(file.attrs["dataset"])
        own = Provenance.from_json(str(file.attrs["provenance"]))
        if provenance_check(dataset, own) == file.attrs["provenance_check"]:
            return dataset, own, True
    # All shards of a stream have one provenance, so that of the healthy shards holds for a damaged one too.
    if healthy and healthy[1].dim == features.shape[1] and np.dtype(healthy[1].dtype) == features.dtype:
        return *healthy, True
    return "", None, False


def _facts(file: h5py.File, rows: int) -> tuple[dict[str, np.ndarray], bool]:
    with contextlib.suppress(Exception):
        group = own_object(file, "facts")
        facts = {name: stored_values(group, name) for name in group}
        if facts_check(facts) == file.attrs["facts_check"]:
            return facts, True
    return {name: np.full(rows, missing, dtype) for name, (dtype, missing) in FACTS.items()}, False


def _times(file: h5py.File, steps: int) -> tuple[np.ndarray | None, bool]:
    """The times of all steps, None where there are none, and whether they can be trusted."""
    with contextlib.suppress(Exception):
        times = right_times(file)
        if times is None or not refuse_times(times, steps):
            return times, True
    return None, False


def _main(parent: str, path: str, into: str, origin_json: str) -> None:
    end_with_parent(int(parent))
    limit_memory(SPARE_MEMORY + 8 * Path(path).stat().st_size)
    origin = None
    if origin_json:
        dataset, provenance = json.loads(origin_json)
        origin = dataset, Provenance.from_json(provenance)
    verdict, shard = read_damaged(Path(path), origin)
    if into and shard is not None:
        try:
            write_shard(Path(into), shard)
        except CacheError as error:
            verdict.dropped = str(error)
    print(json.dumps(asdict(verdict)))


if __name__ == "__main__":
    _main(*sys.argv[1:5])
