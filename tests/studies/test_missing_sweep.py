"""A sweep over the missing rates of one modality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.runs import filling_choice, filling_promise
from fsmm.runs.extent import Auto
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.studies.missing_sweep import RATES, at_rate, missing_sweep


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


@pytest.fixture(autouse=True)
def _few_episodes_a_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling_choice, "EPISODES", 20)
    monkeypatch.setattr(filling_promise, "EPISODES", 10)


def job_of(cache: Path, out: Path, **given: object) -> Job:
    """A job over the toy data set: ProtoNet on 60 episodes of 4 queries a class, with ``given`` of its spec changed."""
    spec = RunSpec(**{"method": "protonet", "protocol": Protocol(n_query=4), **given})
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=60)


def test_a_sweep_over_missing_rates_trains_once_and_ends_where_absence_does(
    cache: Path, tmp_path: Path
) -> None:
    runs = missing_sweep(job_of(cache, tmp_path / "s"), "audio@query")
    assert [r.metrics["protocol"]["missing"][0]["rate"] for r in runs] == [i / 10 for i in range(11)]
    complete = run(job_of(cache, tmp_path / "c"))
    assert np.array_equal(runs[0].accuracy, complete.accuracy)


@pytest.mark.parametrize(
    "given",
    [
        {"fusion": "lf"},
        {"fusion": "ec", "when_missing": "linear"},
        {"method": "ridge", "protocol": Protocol(n_query=4, k_shot=2, query_modalities=("audio", "frame"))},
        {"method": "bdcspn", "when_missing": "match"},
    ],
    ids=["chosen fillers", "a filler", "named modalities", "a transductive head"],
)
def test_each_rate_is_what_a_run_of_its_own_is(cache: Path, tmp_path: Path, given: dict[str, object]) -> None:
    """Predictions that rates share change nothing but the time, also where clips lack the modality by themselves."""
    job = job_of(cache, tmp_path / "s", **given)
    runs = missing_sweep(job, "audio@query")
    for rate in (0.3, 1.0):
        spec = at_rate(job.spec, "audio@query", rate)
        alone = run(replace(job, spec=spec, place=replace(job.place, out=tmp_path / f"{rate:g}")))
        found = runs[RATES.index(rate)]
        assert np.abs(found.accuracy - alone.accuracy).max() <= 1 / 20 + 1e-6, "at most a query by rounding"
        assert abs(found.mean - alone.mean) < 1e-3
        for name in ("ci95", "ci95_clips", "ci95_classes", "episodes", "per_class", "chosen"):
            assert found.metrics[name] == pytest.approx(alone.metrics[name], abs=2e-3), name
        one, other = (each.metrics["when_missing_choice"] or {"scores": {}} for each in (found, alone))
        assert one["scores"] == pytest.approx(other["scores"], abs=2e-3)
        assert [one.get(key) for key in ("support", "query", "parts")] == [
            other.get(key) for key in ("support", "query", "parts")
        ]


def test_predictions_are_found_as_far_as_a_precision_needs_them(cache: Path, tmp_path: Path) -> None:
    job = replace(job_of(cache, tmp_path / "s"), episodes=Auto(4.0))
    counts = [len(found.accuracy) for found in missing_sweep(job, "audio@query")]
    for rate, count in ((0.5, counts[5]), (0.9, counts[9])):
        spec = at_rate(job.spec, "audio@query", rate)
        alone = run(replace(job, spec=spec, place=replace(job.place, out=tmp_path / f"{rate:g}")))
        assert len(alone.accuracy) == count
