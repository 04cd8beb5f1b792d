"""Sharing work over threads and forked processes: same results, errors reach the caller, nothing is left running."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import pytest

from fsmm.errors import FsmmError, UsageError
from fsmm.machine import local_engine as parallel
from fsmm.machine.local_engine import share

both = pytest.mark.parametrize("forked", [False, True])


def squares(part: Sequence[int], tick: Callable[[int], None]) -> list[int]:
    for _ in part:
        tick(1)
    return [i * i for i in part]


@both
@pytest.mark.parametrize("workers", [1, 2, 5, 50])
def test_every_item_is_worked_on_once_and_reported_once(forked: bool, workers: int) -> None:
    reported: list[int] = []
    found = share(squares, range(17), workers, forked=forked, progress=reported.append)
    assert sorted(x for part in found for x in part) == [i * i for i in range(17)]
    assert sum(reported) == 17
    assert found[0] == [i * i for i in range(0, 17, min(workers, 17))]


@both
def test_a_workers_error_reaches_the_caller(forked: bool) -> None:
    def fail(part: Sequence[int], tick: Callable[[int], None]) -> int:
        if 1 in part:
            raise UsageError("no such thing")
        return 0

    with pytest.raises(UsageError, match="no such thing"):
        share(fail, range(4), 2, forked=forked)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_dead_process_is_one_sentence() -> None:
    def die(part: Sequence[int], tick: Callable[[int], None]) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with pytest.raises(FsmmError, match="worker process died"):
        share(die, range(4), 2, forked=True)


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_a_process_that_stands_still_is_given_up_and_its_part_done_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "_PATIENCE", 1.0)
    here = os.getpid()

    def stuck(part: Sequence[int], tick: Callable[[int], None]) -> list[int]:
        while 1 in part and os.getpid() != here:
            time.sleep(0.01)
        return squares(part, tick)

    found = share(stuck, range(5), 2, forked=True)
    assert found == [[0, 4, 16], [1, 9]]


@both
def test_an_interrupt_ends_every_worker(forked: bool) -> None:
    """As Ctrl-C does: KeyboardInterrupt in the parent while workers would go on for a minute."""
    workers = threading.active_count()

    def endless(part: Sequence[int], tick: Callable[[int], None]) -> int:
        for _ in range(6000):
            time.sleep(0.01)
            tick(1)
        return 0

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        share(endless, range(2), 2, forked=forked, progress=interrupt)
    assert time.monotonic() - started < 30
    assert threading.active_count() == workers


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
def test_forked_work_leaves_the_parents_state_alone() -> None:
    seen: list[int] = []

    def remember(part: Sequence[int], tick: Callable[[int], None]) -> int:
        seen.extend(part)
        return len(seen)

    assert share(remember, range(4), 2, forked=True) == [2, 2]
    assert seen == []
