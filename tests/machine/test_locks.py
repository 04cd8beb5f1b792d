"""A lock is held by one process at a time, and is free again when that process is gone, however it went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fsmm.machine.locks import lock_of

HOLD = """
import sys, time
from pathlib import Path
from fsmm.machine.locks import lock_of
with lock_of(Path(sys.argv[1])) as ours:
    print(ours, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_had_once_and_again_after_the_block(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "run"
    with lock_of(path) as first, lock_of(path) as second:
        assert (first, second) == (True, False)
    with lock_of(path) as third:
        assert third


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with lock_of(path) as ours:
            assert not ours
        os.kill(other.pid, signal.SIGKILL)
    with lock_of(path) as ours:
        assert ours
