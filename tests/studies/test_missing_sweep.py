"""A sweep over the missing rates of one modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.studies.missing_sweep import missing_sweep


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


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
