"""Sweeps as a person runs them: they go on where they were stopped, however that was, and lose nothing finished."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cli_support import called
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
  - name: trained
    fixed: {method: relation, train.steps: 20, train.evaluate_episodes: 20, train_seed: 0}
    grid: {seed: [0, 1, 2]}
  - name: wrong
    fixed: {method: protonet, k_shot: 500}
"""
RUNS, FREE = 10, 6


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study file; the study's folder is ``out`` beside it."""
    (tmp_path / "toy.yaml").write_text(STUDY)
    return tmp_path / "toy.yaml"


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study file of a sweep that nothing disturbed, by a process of its own."""
    path = tmp_path_factory.mktemp("whole") / "toy.yaml"
    path.write_text(STUDY)
    done = subprocess.run(command(path, cache), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert "9 runs are in" in done.stderr
    assert "1 failed" in done.stderr
    assert "500-shot" in done.stdout
    assert "Traceback" not in done.stderr
    return path


@pytest.fixture
def swept(study: Path, whole: Path) -> Path:
    """The study file of a whole sweep of the test's own."""
    shutil.copytree(whole.parent / "out", study.parent / "out")
    return study


def words(study: Path, cache: Path, *more: str) -> list[str]:
    given = ["sweep", study, "--cache", cache, "--out", study.parent / "out", "--jobs", "2", *more]
    return [str(word) for word in given]


def command(study: Path, cache: Path) -> list[str]:
    """The command of a sweep that has a process of its own."""
    return [sys.executable, "-m", "fsmm", *words(study, cache)]


def sweep(study: Path, cache: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A sweep in this process."""
    return called(*words(study, cache, *more))


def stored(study: Path) -> dict[str, int]:
    """The time at which each whole run below the study's folder was written, by key."""
    runs = study.parent / "out" / "runs"
    folders = runs.iterdir() if runs.is_dir() else ()
    return {f.name: (f / "metrics.json").stat().st_mtime_ns for f in folders if is_stored(f)}


def summary(study: Path) -> dict[str, Any]:
    found = read_study(study.parent / "out")
    return {row.key: found.metrics(row)["accuracy"] for row in found.done}


def test_a_dry_run_lists_the_runs_and_keeps_what_was_measured(study: Path, cache: Path) -> None:
    planned = sweep(study, cache, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    rows = json.loads(planned.stdout)["rows"]
    assert len(rows) == RUNS
    assert all(row["seconds"] > 0 for row in rows)
    assert os.listdir(study.parent / "out") == ["costs.json"]


def test_a_sweep_over_data_sets_says_where_no_other_one_has_the_streams(study: Path, cache: Path) -> None:
    study.write_text("blocks: [{name: one, fixed: {method: relation}, grid: {train_dataset: [each]}}]")
    planned = sweep(study, cache, "--dry-run", "--set", "train.steps=2", "--set", "episodes=2")
    assert planned.returncode == 0, planned.stderr
    assert f"No other data set of {cache} has the streams of the tested one" in planned.stderr


def test_a_sweep_does_all_but_what_cannot_be_done_and_then_only_that(swept: Path, cache: Path) -> None:
    first, found = stored(swept), read_study(swept.parent / "out")
    assert len(found.rows) == RUNS
    assert [failure.kind for failure in found.failures.values()] == ["TooFew"]
    heads = {row.head for row in found.rows if row.block == "trained"}
    assert len(heads) == 1
    assert len({found.metrics(row)["train_seconds"] for row in found.rows if row.block == "trained"}) == 1

    again = sweep(swept, cache)
    assert "10 runs, 9 done; 1 to do" in again.stderr
    assert stored(swept) == first


def test_a_run_of_a_sweep_is_the_run_of_its_own_command(whole: Path, tmp_path: Path) -> None:
    found = read_study(whole.parent / "out")
    for row in (found.rows[0], found.rows[3], found.rows[7]):
        config = found.run_folder(row) / "config.json"
        alone = called("episode-eval", "--config", config, "--out", tmp_path / "alone", "--json", "--retrain")
        assert alone.returncode == 0, alone.stderr
        assert json.loads(alone.stdout)["accuracy"] == found.metrics(row)["accuracy"]


def test_a_damaged_run_is_done_again(swept: Path, cache: Path) -> None:
    before = stored(swept)
    hurt = swept.parent / "out" / "runs" / min(before) / "episodes.npz"
    hurt.write_bytes(hurt.read_bytes()[:-7])
    assert "8 done; 2 to do" in sweep(swept, cache).stderr
    after = stored(swept)
    assert {key for key in before if before[key] != after[key]} == {min(before)}


@pytest.mark.parametrize("instant", range(1 + ("FSMM_CAMPAIGN" in os.environ)))
def test_a_killed_sweep_goes_on_and_ends_as_if_it_had_not_been(
    study: Path, cache: Path, whole: Path, instant: int
) -> None:
    chance = random.Random(instant)
    with subprocess.Popen(
        command(study, cache), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as started:
        wanted = chance.randrange(1, 8)
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


def test_a_killed_worker_loses_its_run_and_no_other_and_the_next_sweep_does_it(
    study: Path, cache: Path
) -> None:
    study.write_text(STUDY.replace("train.steps: 20,", "train.steps: 500,"))
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
    assert len(stored(study)) == FREE
    assert len(read_study(study.parent / "out").failures) == 4
    before = stored(study)
    assert "9 runs are in" in sweep(study, cache).stderr
    after = stored(study)
    assert {key: after[key] for key in before} == before
    assert len(after) == RUNS - 1


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
    assert len(found.done) == RUNS - 1
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


def test_another_study_does_not_take_a_folder(swept: Path, cache: Path) -> None:
    other = swept.with_name("other.yaml")
    other.write_text(STUDY)
    refused = sweep(other, cache)
    assert refused.returncode == 2
    assert "holds the study 'toy' and not 'other'" in refused.stderr
