"""The checks for a GPU give one table, whatever becomes of each."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/gpu_check.py as a module."""
    spec = importlib.util.spec_from_file_location("gpu_check_script", ROOT / "scripts" / "gpu_check.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_a_check_that_dies_costs_its_own_rows(script: ModuleType, tmp_path: Path) -> None:
    heads = script.Checks("heads", tmp_path, 10.0)
    heads.add("protonet: a | b", 0.01, "points", goal="<= 0.05", is_met=True)
    (tmp_path / "memory.log").write_text("first\nMemoryError: no room\n")
    script.failed(tmp_path, "memory", 1)
    script.failed(tmp_path, "video", 124)
    script.table(tmp_path)
    rows = json.loads((tmp_path / "table.json").read_text())
    assert [(row["check"], row["is_met"]) for row in rows] == [
        ("memory", False),
        ("heads", True),
        ("video", False),
    ]
    assert "MemoryError: no room" in rows[0]["note"]
    assert "its time was up" in rows[2]["note"]
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert len(lines) == 5
    assert all(line.count("|") == 7 for line in lines), "no text breaks the table"


def test_the_limits_of_all_checks_stay_below_six_minutes(script: ModuleType) -> None:
    text = (ROOT / "scripts" / "gpu_check.sh").read_text()
    listed = dict(line.split() for line in text.partition("<<'END'\n")[2].partition("END")[0].splitlines())
    assert listed.keys() == script.CHECKS.keys()
    assert sum(map(int, listed.values())) <= 360


def check(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A call of the shell script."""
    call = ["bash", str(ROOT / "scripts" / "gpu_check.sh"), *options]
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder)


def test_the_shell_script_says_how_it_is_called(tmp_path: Path) -> None:
    told = check(tmp_path, "--help")
    assert told.returncode == 2
    assert "--wheels DIR" in told.stdout
    assert not list(tmp_path.iterdir())


def test_checks_are_chosen_by_name_and_run_in_that_order(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nshift\necho "$@" >>calls\n')
    fake.chmod(0o755)
    told = check(tmp_path, "--python", str(fake), "--only", "video,memory=7", "--out", "made")
    assert told.returncode == 0, told.stderr
    calls = (tmp_path / "calls").read_text().replace(str(tmp_path / "made"), "OUT").splitlines()
    assert calls == ["video --out OUT --limit 30", "memory --out OUT --limit 7", "table --out OUT"]
    told = check(tmp_path, "--python", str(fake), "--only", "vidoe", "--out", "none")
    assert told.returncode == 2
    assert "No check is called vidoe; there are machine" in told.stderr
    assert not (tmp_path / "none").exists()
