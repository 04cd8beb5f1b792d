"""Whatever a run has no value for, ``--json`` prints one strict JSON document, and every .json file is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog


def strict(text: str) -> Any:
    """The value of a text that is JSON by its standard, which has no words for NaN and the infinities."""

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache whose data set has base and novel classes only, so that a training has no accuracy on val classes."""
    root = synthetic_cache(tmp_path_factory.mktemp("cache"), clips=12)
    catalog = Catalog.read(root / "toy")
    codes = catalog.labels("event").splits["default"]
    codes[codes == 2] = 1
    catalog.write(root / "toy")
    return root


# One episode has no spread, so intervals and p-values have no value either.
COMMANDS = (
    ("episode-eval", "--method", "relation", "--modalities", "frame", "--set", "train.steps=2"),
    (
        "episode-eval",
        "--method",
        "relation",
        "--modalities",
        "frame",
        "--set",
        "train.steps=2",
        "--train-seeds",
        "2",
    ),
    ("episode-eval", "--method", "protonet-lf", "--missing-sweep", "audio@query"),
    ("episode-eval", "--method", "protonet-lf", "--reliability"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[2] + words[-2])
def test_what_has_no_value_is_null(cache: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    out = tmp_path / "run"
    words = [*command, "--cache", cache, "--n-query", "2", "--episodes", "1", "--out", out, "--json"]
    done = fsmm(*words)
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)
    written = list(out.rglob("*.json"))
    assert written
    for path in written:
        strict(path.read_text())


def test_a_training_without_val_classes_has_no_best_accuracy(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [
        "--modalities",
        "frame",
        "--set",
        "train.steps=2",
        "--cache",
        cache,
        "--episodes",
        "20",
        "--out",
        out,
    ]
    done = fsmm("episode-eval", "--method", "relation", "--n-query", "2", *words, "--json")
    assert done.returncode == 0, done.stderr
    found = strict(done.stdout)
    assert found["training"]["best_val"] is None
    assert found["accuracy"] > 0
    assert strict((out / "metrics.json").read_text())["training"]["best_val"] is None
    assert "nan" not in done.stderr


def test_a_comparison_of_as_few_episodes_as_can_be_is_one_document_too(cache: Path, tmp_path: Path) -> None:
    words = ["--modalities", "frame", "--cache", cache, "--n-query", "2", "--episodes", "2"]
    for method in ("protonet", "nearest"):
        assert fsmm("episode-eval", "--method", method, *words, "--out", tmp_path / method).returncode == 0
    done = fsmm("compare", tmp_path / "protonet", tmp_path / "nearest", "--json")
    assert done.returncode == 0, done.stderr
    assert strict(done.stdout)["pairs"]


def fsmm(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment)
