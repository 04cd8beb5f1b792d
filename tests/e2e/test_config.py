"""A run's config.json runs the run again: ``fsmm episode-eval --config RUN/config.json``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests_support import synthetic_cache

BRIEF = ("--set", "train.steps=6", "--set", "train.evaluate_every=3", "--set", "train.evaluate_episodes=10")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), absent=0.1, noise=1.5)


def evaluate(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "fsmm", "episode-eval", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "protonet", "--missing", "audio=0.5@query", "--n-way", "3-5", "--words", "none", "--reliability"),
        ("--method", "relation", "--fusion", "ea", "--modalities", "frame,audio", "--train-seed", "3", *BRIEF),
        ("--method", "ridge-words", "--n-way", "0", "--k-shot", "0", "--generalised"),
    ],
)  # fmt: skip
def test_a_run_is_run_again_from_its_configuration_to_the_digit(
    cache: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    task = ("--n-query", 4, "--episodes", 60, "--seed", 5, "--cache", cache)
    first = evaluate(*words, *task, "--out", tmp_path / "first")
    again = evaluate("--config", tmp_path / "first" / "config.json", "--out", tmp_path / "again")
    own = {"out", "train_seconds", "eval_seconds", "episodes_per_second", "peak_memory_mb", "training"}
    assert {k: v for k, v in again.items() if k not in own} == {
        k: v for k, v in first.items() if k not in own
    }
    stored, new = (np.load(tmp_path / name / "episodes.npz") for name in ("first", "again"))
    for name in stored.files:
        assert np.array_equal(stored[name], new[name]), name
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("first", "again")]
    assert configs[0] == configs[1]


def test_flags_win_over_the_file_and_other_clips_are_noted(cache: Path, tmp_path: Path) -> None:
    other = synthetic_cache(tmp_path / "other", seed=1)
    values = {
        "method": "protonet",
        "cache": str(cache),
        "protocol": {"n_query": 4},
        "episodes": 30,
        "fingerprint": "x",
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    words = ("--config", tmp_path / "job.yaml", "--episodes", 20, "--cache", other, "--out", tmp_path / "run")
    command = [sys.executable, "-m", "fsmm", "episode-eval", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["episodes"], found["protocol"]["n_query"]) == (20, 4)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["cache"] == str(other)
    assert "not those of the fingerprint" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("job.json", '{"method": "protonet", "n_wya": 3}', "Did you mean 'n_way'"),
        ("job.json", '{"method": ', "is not valid JSON"),
        ("job.yaml", "method: [", "is not valid YAML"),
        ("job.json", None, "cannot be read (No such file"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_names_it(
    tmp_path: Path, name: str, text: str | None, sentence: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "fsmm", "episode-eval", "--config", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_extraction_takes_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"dataset": "demo", "encoders": {"flow": "dis-hoff"}, "small": true}')
    words = ["extract", "--config", str(tmp_path / "job.json"), "--cache", str(tmp_path / "cache")]
    done = subprocess.run([sys.executable, "-m", "fsmm", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Did you mean 'dis-hof'" in done.stderr
