"""Kills, impatient Ctrl-C and failed first attempts, by the real command line on small real clips."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from extract_support import rows, videos

from fsmm.cache.catalog import Catalog, LabelSet, split_codes
from fsmm.cache.schema import Provenance, list_datasets
from fsmm.cache.stream import StreamWriter
from fsmm.cache.upkeep.verify import verify

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
FLOW = "flow/dis-hof"


def slow_clip(path: Path, frames: int = 6_000_000) -> Path:
    """A valid video of millions of pictures of two by two pixels, which takes minutes to decode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(b"YUV4MPEG2 W2 H2 F10000:1 Ip A1:1 C420jpeg\n")
        file.write((b"FRAME\n" + bytes(6)) * frames)
    return path


def children(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(happened: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def ended(pids: set[int], seconds: float = 10.0) -> None:
    try:
        wait_for(lambda: not any(map(is_alive, pids)), seconds)
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)


def start(*words: object, threads: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def extraction(data: Path, cache: Path, *more: object) -> tuple[object, ...]:
    return (
        "extract",
        "--dataset",
        "folder",
        "--data",
        data,
        "--cache",
        cache,
        "--encoder",
        "flow=dis-hof",
        *more,
    )


@pytest.fixture
def killed() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are killed after the test, whatever its outcome."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("name", "workers"), [("class0/aaa.y4m", 2), ("class9/zzz.y4m", 1)], ids=["first", "last"]
)
def test_a_kill_while_one_clip_is_slow_costs_only_that_clip(
    tmp_path: Path, killed: list[subprocess.Popen[str]], name: str, workers: int
) -> None:
    """Clips that are done reach their shards within --flush-seconds, wherever in the listing the slow one stands."""
    data = videos(tmp_path / "data", 6)
    slow_clip(data / name)
    running = start(*extraction(data, tmp_path / "cache", "--workers", workers, "--flush-seconds", 1, "-q"))
    killed.append(running)
    wait_for(lambda: len(rows(tmp_path / "cache" / "data", FLOW)) == 6 or running.poll() is not None)
    assert running.poll() is None, "it is still at the slow clip"
    workers_of_it = children(running.pid)
    assert workers_of_it
    running.kill()
    running.wait()
    ended(workers_of_it)
    assert len(rows(tmp_path / "cache" / "data", FLOW)) == 6
    assert verify(tmp_path / "cache").ok


@pytest.mark.parametrize("presses", [2, 5])
def test_ctrl_c_again_and_again_is_quiet_and_loses_nothing(
    tmp_path: Path, killed: list[subprocess.Popen[str]], presses: int
) -> None:
    data = videos(tmp_path / "data", 5)
    slow_clip(data / "class9" / "zzz.y4m")
    running = start(*extraction(data, tmp_path / "cache", "--workers", 1, "--flush-seconds", 1, "-q"))
    killed.append(running)
    wait_for(lambda: len(rows(tmp_path / "cache" / "data", FLOW)) == 5 or running.poll() is not None)
    workers_of_it = children(running.pid)
    for _ in range(presses):
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        time.sleep(0.01)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert len(err.strip().splitlines()) == 1
    ended(workers_of_it)
    assert len(rows(tmp_path / "cache" / "data", FLOW)) == 5
    assert not list((tmp_path / "cache").rglob(".*.tmp"))
    assert verify(tmp_path / "cache").ok


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of made features of two modalities."""
    cache = tmp_path_factory.mktemp("features") / "cache"
    names = [f"k{i:02d}" for i in range(12)]
    label = np.arange(240) % 12
    splits = {"default": split_codes(names, base=names[:4], val=names[4:6], novel=names[6:])}
    ids = [f"c{i}" for i in range(240)]
    Catalog("toy", ids, {"kind": LabelSet(names, label, splits=splits)}, "kind").write(cache / "toy")
    rng = np.random.default_rng(0)
    for modality in ("frame", "audio"):
        with StreamWriter(cache / "toy", Provenance("net", modality, 32, dtype="float32")) as writer:
            for clip, k in zip(ids, label):
                writer.add(clip, np.eye(12, 32)[k] + rng.normal(size=(8, 32)))
    return cache


def evaluation(cache: Path) -> subprocess.Popen[str]:
    """An evaluation of so many tasks by a slow method that it is still at work when the test acts."""
    words = ("--cache", cache, "--out", cache.parent / "run", "--episodes", 1_000_000, "--n-query", 10)
    return start("-q", "episode-eval", "--method", "ptmap", *words, threads=2)


def test_forked_workers_of_an_evaluation_end_with_it(
    features: Path, killed: list[subprocess.Popen[str]]
) -> None:
    running = evaluation(features)
    killed.append(running)
    wait_for(lambda: children(running.pid) or running.poll() is not None)
    time.sleep(1.0)
    workers_of_it = children(running.pid)
    assert workers_of_it, running.communicate()[1]
    running.kill()
    running.wait()
    ended(workers_of_it)


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_in_an_evaluation_is_quiet(
    features: Path, killed: list[subprocess.Popen[str]], presses: int
) -> None:
    running = evaluation(features)
    killed.append(running)
    wait_for(lambda: children(running.pid) or running.poll() is not None)
    time.sleep(0.5)
    workers_of_it = children(running.pid)
    for _ in range(presses):
        if running.poll() is None:
            running.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.strip()]) <= 1, err
    ended(workers_of_it)


def test_a_first_extraction_without_a_usable_clip_leaves_no_data_set(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / "data" / "kind").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "kind" / f"{i}.mp4").write_bytes(b"no video at all")
    done = run(*extraction(tmp_path / "data", tmp_path / "cache", "-q"))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert list_datasets(tmp_path / "cache") == []
    assert [path.name for path in (tmp_path / "cache" / "data").iterdir()] == ["failures.jsonl"]
    videos(tmp_path / "data", 2, classes=1)
    assert run(*extraction(tmp_path / "data", tmp_path / "cache", "-q")).returncode == 0
    assert list_datasets(tmp_path / "cache") == ["data"]


def test_a_first_extraction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """An encoder's weights that are none are found out before or after the catalog is written: nothing is left."""
    data = videos(tmp_path / "data", 2)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"no weights")
    words = ("--dataset", "folder", "--data", data, "--cache", tmp_path / "cache", "-q")
    done = run(
        "extract",
        *words,
        "--encoder",
        "frame=efficientnet-lite0",
        "--weights",
        f"efficientnet-lite0={weights}",
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "cache").exists()


def test_a_first_import_that_fails_on_its_way_leaves_nothing(tmp_path: Path) -> None:
    """The features of the last clip overflow the stored type, which only the writer finds out."""
    x = np.random.default_rng(0).normal(size=(600, 4))
    x[-1] = 1e30
    np.savez(tmp_path / "toy.npz", x=x, y=np.array([f"k{i % 3}" for i in range(600)]))
    (tmp_path / "toy.json").write_text(
        '{"dataset": "toy", "source": "toy.npz", "arrays": {"x": "frame/net"}, "label_sets": {"kind": {"label": "y"}}}'
    )
    done = run("cache", "import", tmp_path / "toy.json", "--cache", tmp_path / "cache")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "c" in done.stderr
    assert not (tmp_path / "cache").exists()
