"""Sweeps as a person runs them: they go on where they were stopped, however that was, and lose nothing finished."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.studies.grid.store import is_stored, read_study

pytestmark = pytest.mark.slow

STUDY = """\
title: Toy
fixed: {episodes: 60, n_query: 3}
blocks:
  - name: free
    grid:
      method: [protonet, nearest]
      modalities: [each, all]
      k_shot: [1, 2]
  - name: trained
    fixed: {method: relation, train.steps: 20, train_seed: 0}
    grid: {seed: [0, 1, 2]}
  - name: wrong
    fixed: {method: protonet, k_shot: 500}
"""
RUNS = 16


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    (tmp_path / "toy.yaml").write_text(STUDY)
    return tmp_path / "toy.yaml"


def command(study: Path, cache: Path, *more: str) -> list[str]:
    words = ["sweep", study, "--cache", cache, "--out", study.parent / "out", "--jobs", "2", *more]
    return [sys.executable, "-m", "fsmm", *map(str, words)]


def sweep(study: Path, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(study, cache, *more), capture_output=True, text=True, timeout=300)


def stored(study: Path) -> dict[str, int]:
    """The time at which each whole run below the study's folder was written, by key."""
    runs = study.parent / "out" / "runs"
    folders = runs.iterdir() if runs.is_dir() else ()
    return {f.name: (f / "metrics.json").stat().st_mtime_ns for f in folders if is_stored(f)}


def summary(study: Path) -> dict[str, Any]:
    found = read_study(study.parent / "out")
    return {row.key: found.metrics(row)["accuracy"] for row in found.done}


def test_a_sweep_does_all_but_what_cannot_be_done_and_then_only_that(study: Path, cache: Path) -> None:
    planned = sweep(study, cache, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    assert len(json.loads(planned.stdout)["rows"]) == RUNS
    assert not (study.parent / "out").exists()

    done = sweep(study, cache)
    assert done.returncode == 1
    assert "15 runs are in" in done.stderr
    assert "1 failed" in done.stderr
    assert "500-shot" in done.stdout
    assert "Traceback" not in done.stderr
    first, found = stored(study), read_study(study.parent / "out")
    assert len(found.rows) == RUNS
    assert [failure.kind for failure in found.failures.values()] == ["TooFew"]
    heads = {row.head for row in found.rows if row.block == "trained"}
    assert len(heads) == 1
    assert len({found.metrics(row)["train_seconds"] for row in found.rows if row.block == "trained"}) == 1

    again = sweep(study, cache)
    assert "16 runs, 15 done; 1 to do" in again.stderr
    assert stored(study) == first


def test_a_run_of_a_sweep_is_the_run_of_its_own_command(study: Path, cache: Path) -> None:
    sweep(study, cache)
    found = read_study(study.parent / "out")
    for row in (found.rows[0], found.rows[5], found.rows[12]):
        config = found.run_folder(row) / "config.json"
        words = ["episode-eval", "--config", config, "--out", study.parent / "alone", "--json", "--retrain"]
        alone = subprocess.run(
            [sys.executable, "-m", "fsmm", *map(str, words)], capture_output=True, text=True, timeout=300
        )
        assert alone.returncode == 0, alone.stderr
        assert json.loads(alone.stdout)["accuracy"] == found.metrics(row)["accuracy"]


def test_a_damaged_run_is_done_again(study: Path, cache: Path) -> None:
    sweep(study, cache)
    before = stored(study)
    hurt = study.parent / "out" / "runs" / min(before) / "episodes.npz"
    hurt.write_bytes(hurt.read_bytes()[:-7])
    assert "14 done; 2 to do" in sweep(study, cache).stderr
    after = stored(study)
    assert {key for key in before if before[key] != after[key]} == {min(before)}


@pytest.mark.parametrize("instant", range(1 + ("FSMM_CAMPAIGN" in os.environ)))
def test_a_killed_sweep_goes_on_and_ends_as_if_it_had_not_been(
    study: Path, cache: Path, tmp_path: Path, instant: int
) -> None:
    whole = tmp_path / "whole" / "toy.yaml"
    whole.parent.mkdir()
    whole.write_text(STUDY)
    sweep(whole, cache)
    chance = random.Random(instant)
    with subprocess.Popen(
        command(study, cache), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as started:
        wanted = chance.randrange(1, 12)
        deadline = time.monotonic() + 120
        while len(stored(study)) < wanted and started.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1 * chance.random())
        started.send_signal(signal.SIGKILL)
    before = stored(study)
    done = sweep(study, cache)
    assert f"{len(before)} done" in done.stderr
    after = stored(study)
    assert {key: after[key] for key in before} == before
    assert summary(study) == summary(whole)


def test_a_killed_worker_loses_its_run_and_no_other(study: Path, cache: Path) -> None:
    study.write_text(STUDY.replace("train.steps: 20", "train.steps: 2000"))
    with subprocess.Popen(command(study, cache), stderr=subprocess.PIPE, text=True) as started:
        locks = study.parent / "out" / "locks"
        deadline = time.monotonic() + 120
        while not any(locks.glob("relation-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
        held = [pid for pid in children if holds(int(pid), locks)]
        os.kill(int(held[0]), signal.SIGKILL)
        told = started.communicate(timeout=200)[1]
    assert started.returncode == 1
    assert "killed by signal 9" in told
    assert "Traceback" not in told
    assert len(stored(study)) == 12
    assert len(read_study(study.parent / "out").failures) == 4
    study.write_text(STUDY)
    sweep(study, cache)
    assert len(read_study(study.parent / "out").done) == 15


def holds(process: int, locks: Path) -> bool:
    """Whether a process has opened the lock of the head, which is what the longest task holds."""
    try:
        opened = [os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return False
    return any(name.startswith(str(locks / "relation-")) for name in opened)


def test_two_sweeps_at_once_share_the_work(study: Path, cache: Path) -> None:
    both = [
        subprocess.Popen(command(study, cache), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=300)[1] for process in both]
    assert [process.returncode for process in both] == [1, 1], told
    found = read_study(study.parent / "out")
    assert len(found.done) == 15
    assert not any("Traceback" in text for text in told)


def test_ctrl_c_says_how_to_go_on(study: Path, cache: Path) -> None:
    with subprocess.Popen(
        command(study, cache), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as started:
        deadline = time.monotonic() + 120
        while len(stored(study)) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        started.send_signal(signal.SIGINT)
        told = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert "run the same command again to continue" in told
    assert "Traceback" not in told


def test_another_study_does_not_take_a_folder(study: Path, cache: Path) -> None:
    sweep(study, cache, "--set", "episodes=10", "--set", "train.steps=0")
    other = study.with_name("other.yaml")
    other.write_text(STUDY)
    refused = sweep(other, cache)
    assert refused.returncode == 2
    assert "holds the study 'toy' and not 'other'" in refused.stderr
