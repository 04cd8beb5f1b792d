"""What can still be trusted in a damaged shard, found out in a process of its own.

HDF5 may crash, loop for ever or ask for absurd amounts of memory on damaged metadata (a few flipped bits made 2.0.0
hang), so a file whose seal is wrong is opened only by ``python -m fsmm.cache.upkeep.salvage``, with limits on time and
memory.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np

from ...errors import CacheError
from ..catalog import FACTS
from ..schema import Provenance
from ..shard import Shard, clip_check, facts_check, provenance_check, write_shard

SECONDS = 120.0
SPARE_MEMORY = 2 << 30


@dataclass
class Salvage:
    """What a damaged shard still holds.

    rows: how many it says it has. good: rows whose checksum is right. bad: the ids of the others, as they stand there.
    origin: whether the provenance can be believed. facts: whether the facts can. dropped: why nothing could be read.
    """

    rows: int = 0
    good: int = 0
    bad: list[str] = field(default_factory=list)
    origin: bool = False
    facts: bool = False
    dropped: str = ""


def salvage(path: Path, into: Path | None = None, origin: tuple[str, Provenance] | None = None) -> Salvage:
    """Read what can be trusted of a damaged shard; with ``into``, write its good rows there as a whole shard.

    origin: dataset and provenance of the stream's healthy shards, believed where the shard's own cannot be.
    ``into`` is written only where at least one row and the provenance can be trusted. Never raises for damage.
    """
    told = "" if origin is None else json.dumps([origin[0], origin[1].to_json()])
    command = [sys.executable, "-m", "fsmm.cache.upkeep.salvage", str(path), str(into or ""), told]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return Salvage(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Salvage(dropped="HDF5 does not come to an end reading it")
    except (IndexError, ValueError, TypeError):
        return Salvage(dropped="HDF5 fails on its metadata")


def read_damaged(path: Path, origin: tuple[str, Provenance] | None) -> tuple[Salvage, Shard | None]:
    """In this process: the verdict, and the good rows as a shard where there are any of known origin."""
    try:
        with h5py.File(path, "r") as file:
            return _sift(file, origin)
    except Exception as error:  # damaged HDF5 makes h5py raise nearly anything
        return Salvage(dropped=str(error).split("\n")[0][:200] or type(error).__name__), None


def _sift(file: h5py.File, origin: tuple[str, Provenance] | None) -> tuple[Salvage, Shard | None]:
    features, offset = file["features"][()], file["offset"][()]
    present, check = file["present"][()], file["check"][()]
    keys = [key.decode("utf-8", "surrogateescape") for key in file["key"][()].tolist()]
    rows = min(len(keys), len(present), len(check), len(offset) - 1)
    if features.ndim != 2:
        return Salvage(dropped="its features have lost their shape"), None
    good = [i for i in range(rows) if _row_is_good(i, keys, features, offset, present, check)]
    bad = [keys[i] for i in sorted(set(range(rows)) - set(good))]
    dataset, provenance, believed = _origin(file, features, origin)
    facts, facts_right = _facts(file, len(keys))
    verdict = Salvage(len(keys), len(good), bad, believed, facts_right)
    if not good or provenance is None:
        return verdict, None
    # Only rows that were checked are sliced below, so damaged offsets of other rows do no harm.
    whole = Shard(dataset, provenance, keys, features, offset, present, check, facts, {"repaired": True})
    return verdict, whole.take(good)


def _row_is_good(
    i: int, keys: list[str], features: np.ndarray, offset: np.ndarray, present: np.ndarray, check: np.ndarray
) -> bool:
    start, end = int(offset[i]), int(offset[i + 1])
    if not 0 <= start <= end <= len(features) or (end > start) != bool(present[i]):
        return False
    return clip_check(keys[i], bool(present[i]), features[start:end]) == int(check[i])


def _origin(
    file: h5py.File, features: np.ndarray, told: tuple[str, Provenance] | None
) -> tuple[str, Provenance | None, bool]:
    with contextlib.suppress(Exception):
        dataset = str(file.attrs["dataset"])
        own = Provenance.from_json(str(file.attrs["provenance"]))
        if provenance_check(dataset, own) == file.attrs["provenance_check"]:
            return dataset, own, True
    # A writer adds to a stream only what agrees with it, so the healthy shards speak for a damaged one.
    if told and told[1].dim == features.shape[1] and np.dtype(told[1].dtype) == features.dtype:
        return *told, True
    return "", None, False


def _facts(file: h5py.File, rows: int) -> tuple[dict[str, np.ndarray], bool]:
    with contextlib.suppress(Exception):
        facts = {name: values[()] for name, values in file["facts"].items()}
        if facts_check(facts) == file.attrs["facts_check"]:
            return facts, True
    return {name: np.full(rows, missing, dtype) for name, (dtype, missing) in FACTS.items()}, False


def _limit_memory(path: Path) -> None:
    with contextlib.suppress(
        ImportError, OSError, ValueError
    ):  # no such limits on this platform: time alone limits
        import resource

        # What the libraries have reserved by now varies with the number of cores.
        in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = in_use + SPARE_MEMORY + 8 * path.stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _main(path: str, into: str, told: str) -> None:
    _limit_memory(Path(path))
    origin = None
    if told:
        dataset, provenance = json.loads(told)
        origin = dataset, Provenance.from_json(provenance)
    verdict, shard = read_damaged(Path(path), origin)
    if into and shard is not None:
        try:
            write_shard(Path(into), shard)
        except CacheError as error:
            verdict.dropped = str(error)
    print(json.dumps(asdict(verdict)))


if __name__ == "__main__":
    _main(*sys.argv[1:4])
