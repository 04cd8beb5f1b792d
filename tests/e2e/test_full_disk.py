"""A disk that fills up while any command writes: one sentence, exit code 1, nothing half-written, nothing lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from extract_support import videos

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import list_datasets
from fsmm.cache.upkeep.verify import verify
from fsmm.runs.store import load_run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small file system needs root"
)


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of so many kilobytes."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def fsmm(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environment)


def refused(done: subprocess.CompletedProcess[str], disk: Path) -> None:
    """The command said that there is no space, in one sentence, and nothing half-written lies on the disk."""
    assert done.returncode == 1, (done.returncode, done.stderr[-500:])
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr[-1000:]
    assert "No space left on device" in done.stderr
    assert not [path for path in disk.rglob("*") if path.name.endswith(".tmp")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with toy.json, which describes features of 120 clips in two streams, and the cache of its import."""
    home = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=(120, 4, 64)) for name in ("x", "z")}
    np.savez(home / "toy.npz", y=np.array([f"k{i % 12:02d}" for i in range(120)]), **arrays)
    split = {"seed": 0, "base": 5, "val": 2, "novel": 5}
    mapping = {
        "dataset": "toy",
        "source": "toy.npz",
        "arrays": {"x": "frame/net", "z": "audio/net"},
        "label_sets": {"kind": {"label": "y", "splits": {"default": split}}},
    }
    (home / "toy.json").write_text(json.dumps(mapping))
    assert fsmm("cache", "import", home / "toy.json", "--cache", home / "cache").returncode == 0
    return home


@pytest.mark.parametrize("kilobytes", [8, 48, 120])
def test_an_import_that_does_not_fit_leaves_nothing(source: Path, tmp_path: Path, kilobytes: int) -> None:
    """120 clips of two streams take some 60 kB of catalog and 64 kB a stream."""
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        refused(fsmm("cache", "import", source / "toy.json", "--cache", disk / "cache"), disk)
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("kilobytes", [8, 120])
def test_a_merge_that_does_not_fit_leaves_nothing(source: Path, tmp_path: Path, kilobytes: int) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        refused(fsmm("cache", "merge", source / "cache", "--cache", disk / "cache"), disk)
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("name", ["out.npz", "out", "out.csv"])
def test_an_export_that_does_not_fit_leaves_nothing(source: Path, tmp_path: Path, name: str) -> None:
    with small_disk(tmp_path / "disk", 4 if name == "out.csv" else 60) as disk:
        (disk / "there").write_bytes(bytes(3000))  # So little is left that the labels do not fit either.
        refused(fsmm("cache", "export", disk / name, "--cache", source / "cache"), disk)
        assert [path.name for path in disk.iterdir()] == ["there"]


def test_a_repair_that_does_not_fit_loses_nothing(source: Path, tmp_path: Path) -> None:
    """A damaged shard is rewritten with its good rows; without room for these it stays as it is."""
    size = sum(path.stat().st_size for path in (source / "cache").rglob("*") if path.is_file())
    with small_disk(tmp_path / "disk", size // 1024 + 400) as disk:
        shutil.copytree(source / "cache", disk / "cache")
        shard = next((disk / "cache").rglob("frame/net/00000.h5"))
        contents = bytearray(shard.read_bytes())
        contents[-100] ^= 1
        shard.write_bytes(contents)
        free = shutil.disk_usage(disk).free
        (disk / "filler").write_bytes(bytes(max(free - 20_000, 0)))
        done = fsmm("cache", "verify", "--repair", "--cache", disk / "cache")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr
        assert shard.read_bytes() == bytes(contents)
        assert not list(disk.rglob(".*.tmp"))
        (disk / "filler").unlink()
        assert fsmm("cache", "verify", "--repair", "--cache", disk / "cache").returncode == 0
        assert verify(disk / "cache").clips >= 239


@pytest.mark.parametrize("method", ["protonet-ec", "relation"])
def test_a_run_folder_that_does_not_fit_is_not_left_half_written(
    source: Path, tmp_path: Path, method: str
) -> None:
    with small_disk(tmp_path / "disk", 20) as disk:
        words = ("--episodes", 5000, "--n-query", 5, "--out", disk / "run")
        words += ("--set", "train.steps=20") if method == "relation" else ()
        done = fsmm("-q", "episode-eval", "--cache", source / "cache", "--method", method, *words)
        refused(done, disk)
        assert list(disk.iterdir()) == []


def test_a_run_over_an_older_one_that_does_not_fit_leaves_the_older_one_whole(
    source: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 60) as disk:
        words = ("-q", "episode-eval", "--cache", source / "cache", "--method", "nearest", "--n-query", 5)
        first = fsmm(*words, "--episodes", 100, "--out", disk / "run")
        assert first.returncode == 0, first.stderr
        refused(fsmm(*words, "--episodes", 10_000, "--out", disk / "run"), disk)
        _, metrics, arrays = load_run(disk / "run")
        assert metrics["episodes"] == len(arrays["accuracy"]) == 100


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [4, 8, 16, 24, 32, 48, 64, 96])
def test_an_extraction_that_does_not_fit_keeps_what_is_done(tmp_path: Path, kilobytes: int) -> None:
    data = videos(tmp_path / "data", 4)
    words = ("extract", "--dataset", "folder", "--data", data, "--encoder", "flow=dis-hof", "-q")
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        done = fsmm(*words, "--cache", disk / "cache")
        if done.returncode:
            refused(done, disk)
        for dataset in list_datasets(disk / "cache"):
            Catalog.read(disk / "cache" / dataset)
            assert verify(disk / "cache", dataset).ok
            assert list((disk / "cache" / dataset).rglob("[0-9]*.h5")), "a data set without a row is none"
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        again = fsmm(*words, "--cache", disk / "cache", "--json")
        assert again.returncode == 0, again.stderr
        report = json.loads(again.stdout)
        assert report["done"] + report["skipped"] == 4
