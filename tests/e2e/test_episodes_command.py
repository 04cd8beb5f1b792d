"""``fsmm episodes`` and ``fsmm episode-eval --episodes-file`` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import synthetic_cache

from fsmm.cli import app
from fsmm.errors import UsageError


def test_episodes_are_drawn_replayed_and_replayed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run's config.json replays the same file; a folder in the file's place names the command that reads it."""
    cache, file = synthetic_cache(tmp_path / "cache", streams={"video/net": (12, 8)}), tmp_path / "e.npz"

    def fsmm(*words: object) -> str:
        """What a command prints, run within this process."""
        app([*map(str, words)], prog_name="fsmm", standalone_mode=False)
        return capsys.readouterr().out

    words = ("--cache", cache, "--stream", "video", "--k-shot", 2, "--steps", 4, "--episodes", 50)
    command = [
        sys.executable,
        "-m",
        "fsmm",
        "episodes",
        "draw",
        *map(str, words),
        "--out",
        str(file),
        "--json",
    ]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (told["episodes"], told["n_way"], told["k_shot"], told["steps"]) == (50, 5, 2, 4)
    evaluate = ("episode-eval", "--method", "protonet", "--cache", cache)
    run = json.loads(fsmm(*evaluate, "--episodes-file", file, "--out", tmp_path / "run", "--json"))
    assert run["episodes"] == 50
    again = json.loads(
        fsmm("episode-eval", "--config", tmp_path / "run/config.json", "--out", tmp_path / "two", "--json")
    )
    assert (again["accuracy"], again["protocol"]) == (run["accuracy"], run["protocol"])
    with pytest.raises(UsageError, match="fsmm episodes import"):
        fsmm(*evaluate, "--episodes-file", tmp_path)
    with pytest.raises(UsageError, match="no episode"):
        fsmm("episodes", "import", tmp_path, "--out", file)
