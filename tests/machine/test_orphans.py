"""A helper process ends when its parent is gone, however that ended, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
time.sleep(60)
"""
BUSY = """
import sys
from fsmm.machine import orphans
{before}
orphans.end_with_parent(int(sys.argv[1]))
print("ready", flush=True)
while True:
    pass
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "before", ["pass", "orphans._is_told_by_the_system = lambda: False"], ids=["system", "thread"]
)
def test_a_busy_child_of_a_killed_parent_ends(before: str) -> None:
    script = BUSY.format(before=before)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.stdout.readline() == "ready\n"
        assert is_alive(child)
        parent.kill()
        parent.wait()
        end = time.monotonic() + 10
        while is_alive(child):
            assert time.monotonic() < end, "the child outlived its parent"
            time.sleep(0.05)
    finally:
        if is_alive(child):
            os.kill(child, signal.SIGKILL)


def test_a_child_whose_parent_was_gone_already_ends_at_once() -> None:
    script = "from fsmm.machine.orphans import end_with_parent; end_with_parent(1 << 22); print('alive')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
