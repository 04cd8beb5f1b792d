"""The decoding workers: order, crashes, hangs, and what passes through their pipes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from extract_support import WHITE, Tint, stills

from fsmm.errors import FsmmError
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.pipeline.pool import Pool, _cause, _Worker
from fsmm.extract.pipeline.wire import receive, send
from fsmm.extract.pipeline.worker import ABSENT, FAILED, READY, Job, Outcome, Setup, carry_out


def through_a_pipe(*values: Any) -> list[Any]:
    read_end, write_end = os.pipe()
    with FileIO(read_end, "rb") as inbox, FileIO(write_end, "wb") as outbox:
        sender = threading.Thread(target=lambda: [send(outbox, value) for value in values])
        sender.start()
        got = [receive(inbox) for _ in values]
        sender.join()
    return got


def test_values_pass_unchanged_whatever_their_arrays() -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 255, (3, 500, 500), np.uint8),  # larger than any pipe
        rng.normal(size=(4, 5))[:, ::2],  # not contiguous
        np.zeros((0, 7), np.float32),
        np.asfortranarray(rng.normal(size=(3, 4))),
    ]
    (got,) = through_a_pipe({"arrays": arrays, "text": "é\n"})
    assert got["text"] == "é\n"
    for sent, back in zip(arrays, got["arrays"]):
        assert back.dtype == sent.dtype
        assert np.array_equal(back, sent)


def test_values_keep_their_order() -> None:
    assert through_a_pipe(1, "two", [3.0]) == [1, "two", [3.0]]


def test_an_end_in_the_middle_of_a_value_is_an_end() -> None:
    read_end, write_end = os.pipe()
    with FileIO(read_end, "rb") as inbox:
        with FileIO(write_end, "wb") as outbox:
            outbox.write(b"\x01\x00\x00\x00\xff")
        with pytest.raises(EOFError):
            receive(inbox)


def outcomes(
    tmp_path: Path,
    numbers: list[int],
    encoder: Tint,
    workers: int = 2,
    timeout: float = 60.0,
    stop: Callable[[], bool] = lambda: False,
) -> list[tuple[Job, Outcome]]:
    listing = stills(tmp_path / "stills", numbers)
    jobs = [Job(clip, source, (0,)) for clip, source in listing.sources.items()]
    with Pool(
        setup=Setup((encoder,), Sampling()), jobs=jobs, workers=workers, timeout=timeout, stop=stop
    ) as pool:
        return list(pool.outcomes())


def test_outcomes_come_in_order_and_equal_those_made_here(tmp_path: Path) -> None:
    numbers = list(range(1, 13))
    got = outcomes(tmp_path, numbers, Tint(), workers=3)
    assert [job.clip_id for job, _ in got] == [f"c{i:03d}" for i in range(len(numbers))]
    for job, outcome in got:
        here = carry_out(job, Setup((Tint(),), Sampling()))
        assert repr(outcome.facts) == repr(here.facts)  # NaN is NaN
        assert np.array_equal(outcome.parts[0].value, here.parts[0].value)
    assert not np.array_equal(got[0][1].parts[0].value, got[6][1].parts[0].value)


@pytest.mark.parametrize(
    ("white", "stage", "told"), [("crash", "crash", "SIGSEGV"), ("hang", "timeout", "1.5 s")]
)
def test_a_worker_that_crashes_or_hangs_costs_one_clip(
    tmp_path: Path, white: str, stage: str, told: str
) -> None:
    numbers = [1, 2, WHITE, 4, 5, WHITE, 7]
    got = outcomes(tmp_path, numbers, Tint(white), timeout=1.5 if white == "hang" else 60.0)
    assert [outcome.stage for _, outcome in got] == [stage if n == WHITE else "" for n in numbers]
    assert all(told in outcome.reason for _, outcome in got if outcome.stage)


def test_when_every_clip_crashes_the_run_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fsmm.extract.pipeline.pool._CRASHES_IN_A_ROW", 5)
    with pytest.raises(FsmmError, match="5 clips in a row"):
        outcomes(tmp_path, [WHITE] * 12, Tint("crash"), workers=1)


def test_crashes_with_good_clips_between_do_not_stop_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmm.extract.pipeline.pool._CRASHES_IN_A_ROW", 2)
    got = outcomes(tmp_path, [WHITE, 1, WHITE, 2, WHITE], Tint("crash"), workers=1)
    assert [outcome.stage for _, outcome in got] == ["crash", "", "crash", "", "crash"]


def test_a_worker_that_cannot_start_says_why(tmp_path: Path) -> None:
    class Unknown(Tint):
        """Cannot be found by name in another process."""

    Unknown.__qualname__ = "NoSuchClass"
    with pytest.raises(FsmmError, match=r"worker (could not start|failed)"):
        outcomes(tmp_path, [1], Unknown())


@pytest.mark.parametrize(("killed", "ends"), [(2, False), (3, True)])
def test_a_worker_that_is_killed_while_it_starts_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int, ends: bool
) -> None:
    """Three times in a row it is the machine's fault, and the run says so."""
    opened, seen = _Worker._opened, []

    def soon_killed(self: _Worker) -> Any:
        process = opened(self)
        seen.append(process)
        if len(seen) <= killed:
            process.kill()
        return process

    monkeypatch.setattr(_Worker, "_opened", soon_killed)
    if ends:
        with pytest.raises(FsmmError, match=r"could not start \(it ended: SIGKILL\)"):
            outcomes(tmp_path, [1, 2], Tint(), workers=1)
        return
    assert [outcome.stage for _, outcome in outcomes(tmp_path, [1, 2], Tint(), workers=1)] == ["", ""]


def test_stopping_ends_the_outcomes_early(tmp_path: Path) -> None:
    seen: list[str] = []
    listing = stills(tmp_path, list(range(1, 9)))
    jobs = [Job(clip, source, (0,)) for clip, source in listing.sources.items()]
    with Pool(Setup((Tint(),), Sampling()), jobs, 1, stop=lambda: len(seen) >= 3) as pool:
        seen.extend(job.clip_id for job, _ in pool.outcomes())
    assert seen == ["c000", "c001", "c002"]


def test_finished_clips_do_not_wait_for_a_slow_one_longer_than_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a window of three jobs the slow one would else hold up all others until it is given up."""
    monkeypatch.setattr("fsmm.extract.pipeline.pool._WINDOW", 3)
    listing = stills(tmp_path / "stills", [1, WHITE, 3, 4, 5, 6, 7, 8])
    jobs = [Job(clip, source, (0,)) for clip, source in listing.sources.items()]
    idle: list[float] = []
    with Pool(
        Setup((Tint("hang"),), Sampling()),
        jobs,
        2,
        timeout=8.0,
        idle=lambda: idle.append(time.monotonic()),
        patience=0.5,
    ) as pool:
        got = [(job.clip_id, outcome.stage) for job, outcome in pool.outcomes()]
    assert sorted(clip for clip, _ in got) == [f"c{i:03d}" for i in range(8)]
    assert got[0] == ("c000", "")
    assert got[-1] == ("c001", "timeout")
    assert len(idle) > 10, "the time of waiting could be used"


@pytest.mark.parametrize(("white", "state"), [("refuse", ABSENT), ("err", FAILED), ("", READY)])
def test_what_prepare_says_decides_the_part(tmp_path: Path, white: str, state: str) -> None:
    listing = stills(tmp_path, [WHITE])
    part = carry_out(Job("c000", listing.sources["c000"], (0,)), Setup((Tint(white),), Sampling())).parts[0]
    assert part.state == state
    assert {"refuse": "It is too white.", "err": "ValueError: a slip of the encoder", "": ""}[
        white
    ] == part.reason


def test_a_file_that_is_no_media_is_a_reason_not_an_exception(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    outcome = carry_out(Job("x", Source(video=bad), (0,)), Setup((Tint(),), Sampling()))
    assert outcome.stage == "decode"
    assert "bad.mp4" in outcome.reason
    assert "\n" not in outcome.reason


def test_causes_of_death() -> None:
    assert _cause(-9) == "SIGKILL"
    assert _cause(3) == "exit status 3"
    assert _cause(-250) == "signal 250"
