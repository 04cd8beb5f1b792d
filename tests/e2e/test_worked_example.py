"""The worked example of docs/studies.md, from videos to the table of a paper, by its lines as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from extract_support import videos

from fsmm.extract.weights.store import weight_cache

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## An example, from videos to a table"
CLASSES, CLIPS = 12, 8


def example() -> str:
    """The fenced block below the example's heading."""
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    found = re.search(r"^```sh\n(.*?)^```$", text[text.index(HEADING) :], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif("FSMM_CAMPAIGN" not in os.environ, reason="takes minutes; `make campaign` runs it")
def test_the_lines_run_as_they_stand_and_end_in_a_table(tmp_path: Path) -> None:
    home, program = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    program.mkdir()
    (program / "fsmm").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fsmm "$@"\n')
    (program / "fsmm").chmod(0o755)
    (home / "examples").symlink_to(ROOT / "examples")
    videos(home / "my-videos", CLASSES * CLIPS, classes=CLASSES)
    environment = {
        **os.environ,
        "PATH": f"{program}:{os.environ['PATH']}",
        "XDG_CACHE_HOME": str(tmp_path / "user-cache"),
        "FSMM_WEIGHTS": str(weight_cache()),
        "OMP_NUM_THREADS": "1",
    }
    environment.pop("FSMM_CACHE", None)
    done = subprocess.run(
        ["bash", "-euc", example()], cwd=home, env=environment, capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    table = (home / "my-study" / "report" / "runs.tex").read_text()
    assert table in done.stdout
    assert table.count("\\begin{tabular}") == table.count("\\bottomrule") == 1
    first = table.split("\\midrule\n")[1].splitlines()[0]
    assert " free " in first, "a task begins with what needs no training"
