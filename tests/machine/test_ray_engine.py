"""Jobs on a real Ray cluster of two nodes: results, errors, deaths and lost nodes all come out right."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_support import two_nodes

from fsmm.errors import FsmmError, UsageError
from fsmm.machine.forked_jobs import Outcome
from fsmm.machine.ray_actors import RayActors
from fsmm.machine.ray_engine import TRIES, RayJobs, cores_beside_gpus, slots


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Any, Any]]:
    with two_nodes() as made:
        yield made


def all_outcomes(jobs: RayJobs) -> dict[object, Outcome]:
    found: dict[object, Outcome] = {}
    while not jobs.is_idle:
        found |= {outcome.job: outcome for outcome in jobs.wait(10)}
    return found


def test_results_errors_and_deaths_come_back_under_their_names(cluster: tuple[Any, Any]) -> None:
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


def test_a_worker_that_cannot_be_made_says_why(cluster: tuple[Any, Any]) -> None:
    def fail() -> Callable[[int], int]:
        raise ValueError("no such weights")

    with pytest.raises(FsmmError, match="could not start: no such weights"), RayActors(fail) as actors:
        list(actors.outcomes([1, 2]))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_items_of_a_lost_node_are_done_by_the_other(cluster: tuple[Any, Any], tmp_path: Path) -> None:
    """Both nodes have begun an item when one is killed; every item has one outcome all the same.

    No test after this one has two nodes.
    """

    def make() -> Callable[[int], int]:
        def work(item: int) -> int:
            with open(tmp_path / f"{item}", "a") as file:
                file.write(f"{os.getpid()}\n")
            while not (tmp_path / "go").exists():
                time.sleep(0.05)
            return item * item

        return work

    def kill() -> None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
        workers = [int(path.read_text().split()[0]) for path in tmp_path.iterdir()]
        cluster[0].remove_node(cluster[1], allow_graceful=False)
        while all(Path(f"/proc/{worker}").exists() for worker in workers):  # It ends when it misses its node.
            time.sleep(0.05)
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    with RayActors(make) as actors:
        found = list(actors.outcomes(range(6)))
    killer.join()
    assert sorted((int(str(o.job)), o.value) for o in found) == [(i, i * i) for i in range(6)]
    begun = {int(p.name): p.read_text().split() for p in tmp_path.iterdir() if p.name != "go"}
    assert sorted(len(workers) for workers in begun.values()) == [1, 1, 1, 1, 1, 2]


def test_without_ray_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"needs the package ray.*\[ray\]"):
        RayJobs()


def test_an_address_without_a_cluster_is_one_sentence() -> None:
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
