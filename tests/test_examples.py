"""Every program of examples/ runs to its end from a folder of its own, and examples/README.md lists it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_an_example_runs(program: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path, env={**os.environ, "FSMM_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "2"},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{program.name}: {done.stdout[-1000:]}{done.stderr[-3000:]}"
    assert done.stdout.strip()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.stem)
def test_an_example_is_listed_and_says_how_to_run_it(program: Path) -> None:
    assert f"]({program.name})" in (EXAMPLES / "README.md").read_text()
    assert f"python examples/{program.name}" in program.read_text()
