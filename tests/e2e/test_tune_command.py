"""``fsmm tune`` as a program: killed at work, it goes on, and its configuration is a run's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests_support import synthetic_cache

pytest.importorskip("optuna")


def test_a_killed_tuning_loses_the_trial_at_hand_alone(tmp_path: Path) -> None:
    cache = synthetic_cache(tmp_path / "cache", clips=8, noise=2.5)
    given = ["protonet", "--modalities", "frame", "--n-way", "3", "--n-query", "4", "--val-episodes", "50"]
    line = [
        sys.executable,
        "-m",
        "fsmm",
        "tune",
        *given,
        "--cache",
        str(cache),
        "--out",
        str(tmp_path / "out"),
    ]
    told = []
    with subprocess.Popen([*line, "--trials", "500"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for text in process.stderr:
            if "%  " in text:
                told.append(text.split("%", 1)[1].strip())
            if len(told) == 3:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    trials = "6"
    again = subprocess.run(
        [*line, "--trials", trials, "--json"], capture_output=True, text=True, check=True, timeout=120
    )
    document = json.loads(again.stdout)
    by_number = {trial["number"]: trial for trial in document["trials"]}
    assert sorted(by_number) == list(range(len(by_number)))
    assert len(by_number) >= int(trials)
    settings = [" ".join(f"{k}={v}" for k, v in by_number[n]["settings"].items()) for n in sorted(by_number)]
    assert settings[1:4] == told  # What had ended is kept, in its order; the default came first.
    assert json.loads(Path(document["config"]).read_text())["method"] == "protonet"
