"""Interruptions of any kind cost at most the open shard; the next run continues with what is missing."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from extract_support import rows, same_rows, videos

from fsmm.cache.catalog import Catalog

STREAMS = ("flow/dis-hof", "audio/logmel-mfcc")
SCRIPT = """
import sys, fsmm
report = fsmm.extract("folder", sys.argv[1], sys.argv[2], {streams}, workers=2, flush_seconds=0.1, quiet=True)
print(report.to_json())
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("clips") / "data", 40)


def start(data: Path, cache: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT.format(streams=STREAMS), str(data), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def descendants(pid: int) -> set[int]:
    """Children of a process, from /proc."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.add(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stored(cache: Path) -> int:
    return sum(len(rows(cache / "data", stream)) for stream in STREAMS)


def shards(cache: Path) -> int:
    return len(list(cache.rglob("[0-9]*.h5")))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_six_kills_at_random_instants_lose_nothing_that_was_written(data: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    whole = start(data, tmp_path / "whole")
    _, err = whole.communicate(timeout=120)
    assert whole.returncode == 0, err
    span = time.monotonic() - began
    draw = random.Random(0)
    held = 0
    for kill in range(6):
        killed = start(data, tmp_path / "killed")
        if kill % 2:  # at a random instant of the run
            time.sleep(draw.uniform(0.2, 1.0) * span)
        else:  # at a random instant after it made progress
            before = shards(tmp_path / "killed")
            wait_for(lambda: shards(tmp_path / "killed") > before or killed.poll() is not None)  # noqa: B023
            time.sleep(draw.uniform(0.0, 0.3))
        children = descendants(killed.pid)
        killed.kill()
        killed.communicate()
        wait_for(lambda: not any(alive(child) for child in children))  # noqa: B023
        now = stored(tmp_path / "killed")
        assert now >= held
        held = now
    assert held > 0
    last = start(data, tmp_path / "killed")
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert json.loads(out)["done"] + json.loads(out)["skipped"] == 40
    for stream in STREAMS:
        assert same_rows(
            rows(tmp_path / "killed" / "data", stream), rows(tmp_path / "whole" / "data", stream)
        )
    one, other = (Catalog.read(tmp_path / name / "data") for name in ("killed", "whole"))
    assert one.clip_id == other.clip_id
    assert one.facts["sha256"].tolist() == other.facts["sha256"].tolist()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(data: Path, tmp_path: Path, number: int) -> None:
    words = ["--dataset", "folder", "--data", str(data), "--cache", str(tmp_path), "--workers", "1"]
    command = [sys.executable, "-m", "fsmm", "extract", *words, "--encoder", "flow=dis-hof"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    opened = tmp_path / "data" / "streams" / "flow" / "dis-hof" / ".lock"
    wait_for(lambda: opened.exists() or running.poll() is not None)
    time.sleep(0.4)
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "run the same command again to continue" in err
    assert len(err.strip().splitlines()) == 1
    kept = rows(tmp_path / "data", "flow/dis-hof")
    assert len(kept) < 40
    assert f"{len(kept)} of 40" in err
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    report = json.loads(done.stdout)
    assert (report["skipped"], report["done"]) == (len(kept), 40 - len(kept))
    assert len(rows(tmp_path / "data", "flow/dis-hof")) == 40
