"""Runs that are compared in pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError, UsageError
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.studies.compare import compare, holm, paired


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def job_of(cache: Path, out: Path, **given: object) -> Job:
    """A job over the toy data set: ProtoNet on 60 episodes of 4 queries a class, with ``given`` of its spec changed."""
    spec = RunSpec(**{"method": "protonet", "protocol": Protocol(n_query=4), **given})
    return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=out), episodes=60)


def test_runs_on_the_same_episodes_are_paired_and_others_refused(cache: Path, tmp_path: Path) -> None:
    a = run(job_of(cache, tmp_path / "a", method="protonet", modalities=("frame",)))
    b = run(job_of(cache, tmp_path / "b", method="protonet", modalities=("audio",)))
    c = run(job_of(cache, tmp_path / "c", method="nearest", modalities=("frame",)))
    found = compare([a.out, b.out, c.out])
    assert len(found.pairs) == 3
    difference = a.accuracy.astype(float) - b.accuracy
    assert found.pairs[0].difference == pytest.approx(difference.mean())
    d = run(job_of(cache, tmp_path / "d", protocol=Protocol(n_query=4, seed=9)))
    with pytest.raises(UsageError, match="seed is 0 and 9"):
        compare([a.out, d.out])
    with pytest.raises(FsmmError, match="not a complete run"):
        compare([a.out, tmp_path])


def test_the_paired_test_agrees_with_scipy_and_holm_with_its_definition() -> None:
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    a, b = rng.random(300), rng.random(300)
    assert paired("a", "b", a, b).p == pytest.approx(ttest_rel(a, b).pvalue)
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert paired("a", "a", a, a).p == 1.0
