"""A small fixed sample of `make campaign`: mutated files, and files that change while they are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "campaigns" / "extraction.py"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_sample_of_the_faults_against_extraction_is_taken_as_it_should_be() -> None:
    words = [
        "--files",
        "18",
        "--rounds",
        "1",
        "--clips",
        "4",
        "--seed",
        "1",
        "--only",
        "mutations",
        "changes",
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("taken as they should be") == 2
    for kind in ("flipped", "cut", "exchanged"):
        assert f"x {kind}: " in done.stdout
