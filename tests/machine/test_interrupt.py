"""Ctrl-C once interrupts; again, it disturbs nothing; three times, it ends the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys
from fsmm.machine.interrupt import InterruptedOnce
signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell starts processes in the background without it.
with InterruptedOnce():
    try:
        for _ in range({times}):
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                print("cleared away", flush=True)
    except KeyboardInterrupt:
        for _ in range({times} - 1):
            signal.raise_signal(signal.SIGINT)
        print("interrupted", flush=True)
print(signal.getsignal(signal.SIGINT) == signal.SIG_IGN)
"""


@pytest.mark.parametrize(
    ("times", "code", "words"),
    [
        (1, 0, ["cleared away", "interrupted", "True"]),
        (2, 0, ["cleared away", "interrupted", "True"]),
        (3, 130, ["cleared away"]),
    ],
)
def test_only_the_first_interrupts_and_the_third_ends(times: int, code: int, words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(times=times)], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (code, words, "")


def test_without_an_interrupt_everything_is_as_before() -> None:
    from fsmm.machine.interrupt import InterruptedOnce

    before = signal.getsignal(signal.SIGINT)
    with InterruptedOnce():
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_a_process_that_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    script = """
import signal
from fsmm.machine.interrupt import InterruptedOnce
signal.signal(signal.SIGINT, signal.SIG_IGN)
with InterruptedOnce():
    signal.raise_signal(signal.SIGINT)
print("went on")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stdout == "went on\n"
