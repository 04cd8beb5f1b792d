"""A study's progress says which of its runs is under way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec
from fsmm.studies.missing_sweep import RATES, missing_sweep
from fsmm.studies.seed_spread import seed_spread

BRIEF = {"train.steps": "2", "train.evaluate_every": "2", "train.evaluate_episodes": "5"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"))


def job_of(cache: Path, out: Path) -> Job:
    spec = RunSpec(method="relation", fusion="ec", settings=BRIEF, protocol=Protocol(n_query=2))
    return Job(spec=spec, place=Place(cache=cache, out=out), episodes=10)


def test_a_sweep_trains_once_and_counts_its_rates(cache: Path, tmp_path: Path) -> None:
    told: list[str] = []
    missing_sweep(job_of(cache, tmp_path), "audio@query", lambda phase, *_: told.append(phase))
    phases = list(dict.fromkeys(told))
    assert phases == ["train", *(f"run {number} of {len(RATES)}: evaluate" for number in range(1, 12))]


def test_a_spread_counts_its_trainings(cache: Path, tmp_path: Path) -> None:
    told: list[str] = []
    seed_spread(job_of(cache, tmp_path), 2, lambda phase, *_: told.append(phase))
    assert list(dict.fromkeys(told)) == [
        f"run {number} of 2: {phase}" for number in (1, 2) for phase in ("train", "evaluate")
    ]
