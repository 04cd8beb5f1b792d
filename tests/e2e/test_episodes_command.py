"""``fsmm episodes`` and ``fsmm episode-eval --episodes-file`` as a person meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests_support import synthetic_cache


def fsmm(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_episodes_are_drawn_replayed_and_replayed_again(tmp_path: Path) -> None:
    """A run's config.json replays the same file; a folder in the file's place names the command that reads it."""
    cache, file = synthetic_cache(tmp_path / "cache", streams={"video/net": (12, 8)}), tmp_path / "e.npz"
    words = ("--cache", cache, "--stream", "video", "--k-shot", 2, "--steps", 4, "--episodes", 50)
    told = json.loads(fsmm("episodes", "draw", *words, "--out", file, "--json").stdout)
    assert (told["episodes"], told["n_way"], told["k_shot"], told["steps"]) == (50, 5, 2, 4)
    evaluate = ("episode-eval", "--method", "protonet", "--cache", cache)
    run = json.loads(fsmm(*evaluate, "--episodes-file", file, "--out", tmp_path / "run", "--json").stdout)
    assert run["episodes"] == 50
    again = json.loads(
        fsmm(
            "episode-eval", "--config", tmp_path / "run/config.json", "--out", tmp_path / "two", "--json"
        ).stdout
    )
    assert (again["accuracy"], again["protocol"]) == (run["accuracy"], run["protocol"])
    assert "fsmm episodes import" in fsmm(*evaluate, "--episodes-file", tmp_path, code=2).stderr
    assert "no episode" in fsmm("episodes", "import", tmp_path, "--out", file, code=2).stderr
