"""Jobs on a real cluster of this machine: results, errors and deaths all come out right.

Lost nodes are met by tests/e2e/test_ray.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray_support import cluster_of

from fsmm.errors import FsmmError, UsageError
from fsmm.machine.outcome import Outcome
from fsmm.machine.ray_actors import RayActors
from fsmm.machine.ray_engine import TRIES, RayJobs, cores_beside_gpus, slots


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with cluster_of(num_cpus=2) as made:
        yield made


def all_outcomes(jobs: RayJobs) -> dict[object, Outcome]:
    found: dict[object, Outcome] = {}
    while not jobs.is_idle:
        found |= {outcome.job: outcome for outcome in jobs.wait(10)}
    return found


def test_results_errors_and_deaths_come_back_under_their_names(cluster: Any) -> None:
    def refuse() -> None:
        from fsmm.errors import UsageError

        raise UsageError("Not this way.")

    with RayJobs() as jobs:
        assert (jobs.most, slots(), slots(gpus=1), cores_beside_gpus()) == (2, 2, 0, (0, 1))
        jobs.start("right", lambda: 42)
        jobs.start("wrong", refuse)
        assert not jobs.has_room
        found = all_outcomes(jobs)
        jobs.start("dying", lambda: os.kill(os.getpid(), 9))
        found |= all_outcomes(jobs)
    assert found["right"].value == 42
    assert (found["wrong"].kind, found["wrong"].reason) == ("UsageError", "Not this way.")
    assert f"lost {TRIES} times" in found["dying"].reason
    with pytest.raises(FsmmError, match="1 CPUs and 1 GPUs"):
        RayJobs(gpus=1)


def test_actors_keep_their_state_and_what_ends_one_is_given_up(cluster: Any) -> None:
    """Items 0 to 4 are added up by the actors; item 5 ends its process, each time."""

    def make() -> Callable[[int], int]:
        done: list[int] = []

        def work(item: int) -> int:
            if item == 5:
                os.kill(os.getpid(), 9)
            done.append(item)
            return len(done)

        return work

    with RayActors(make, most=1) as actors:
        first = list(actors.outcomes(range(5)))
        assert sorted((outcome.job, outcome.value) for outcome in first) == [(i, i + 1) for i in range(5)]
        second = {outcome.job: outcome for outcome in actors.outcomes([5, 6])}
    assert f"lost {TRIES} times" in second[5].reason
    assert second[6].value == 1, "another actor did it"


def test_a_worker_that_cannot_be_made_says_why(cluster: Any) -> None:
    def fail() -> Callable[[int], int]:
        raise ValueError("no such weights")

    with (
        pytest.raises(FsmmError, match="could not start: no such weights"),
        RayActors(fail) as actors,
    ):
        list(actors.outcomes([1, 2]))


def test_without_ray_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray.*\[ray\]"):
        RayJobs()


def test_an_address_without_a_cluster_is_one_sentence() -> None:
    pytest.importorskip("ray")
    script = (
        "from fsmm.machine.ray_engine import connect\n"
        "from fsmm.errors import FsmmError\n"
        "try:\n    connect()\nexcept FsmmError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_ADDRESS": "nonsense:::1"},
        timeout=120,
        check=False,
    )
    assert "Ray cannot be used at RAY_ADDRESS=nonsense:::1" in done.stdout, done.stderr
