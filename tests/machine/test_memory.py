"""Freed memory stays with the process, unless the user has said otherwise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from fsmm.machine.memory import keep_freed_memory

def faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.full(10 << 20, 1.0, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults(), keep_freed_memory(), (faults(), faults())[1])
"""


def told(**environment: str) -> list[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**clean, **environment})
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_large_arrays_are_not_paged_in_again() -> None:
    before, agreed, after = told()
    assert agreed == "True"
    assert int(after) < int(before) / 10


def test_the_users_own_thresholds_are_obeyed() -> None:
    assert told(MALLOC_TRIM_THRESHOLD_="131072")[1] == "False"
