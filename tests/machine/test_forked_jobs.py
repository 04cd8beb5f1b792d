"""Jobs in processes of their own: results, errors and deaths all come back, under the job's name."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

from fsmm.errors import UsageError
from fsmm.machine.forked_jobs import ForkedJobs
from fsmm.machine.outcome import Outcome


def all_outcomes(pool: ForkedJobs) -> dict[object, Outcome]:
    found: dict[object, Outcome] = {}
    while not pool.is_idle:
        found |= {outcome.job: outcome for outcome in pool.wait(10)}
    return found


def refuse() -> None:
    raise UsageError("Not this way.")


@pytest.mark.parametrize("forked", [True, False])
def test_results_and_errors_come_back(forked: bool) -> None:
    with ForkedJobs(2, forked=forked) as pool:
        pool.start("right", lambda: 42)
        found = {} if pool.has_room else all_outcomes(pool)
        pool.start("wrong", refuse)
        found |= all_outcomes(pool)
    assert found["right"].value == 42
    assert (found["wrong"].kind, found["wrong"].reason) == ("UsageError", "Not this way.")


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_a_killed_process_is_told_and_disturbs_no_other() -> None:
    with ForkedJobs(2) as pool:
        pool.start("killed", lambda: os.kill(os.getpid(), signal.SIGKILL))
        pool.start("whole", lambda: "fine")
        assert not pool.has_room
        found = all_outcomes(pool)
    assert "killed by signal 9" in found["killed"].reason
    assert found["whole"].value == "fine"


@pytest.mark.skipif(sys.platform != "linux", reason="jobs are forked on Linux alone")
def test_leaving_ends_what_runs() -> None:
    began = time.monotonic()
    with ForkedJobs(1) as pool:
        pool.start("long", lambda: time.sleep(60))
    assert time.monotonic() - began < 30
    assert pool.is_idle
