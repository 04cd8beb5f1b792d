"""The demo's ``order`` classes show the same four pictures in different orders: decoded video, from the command line.

A class is the order alone, so the mean over time says nothing of it, and heads that read time must.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHANCE = 0.2
# Of about 31 novel clips each is right with a chance of its own; were those spread by 0.15 around 0.2, their mean would
# be off by 0.08 once in three hundred draws of clips.
CLOSE = 0.08
TASK = [
    "--dataset",
    "demo",
    "--label-set",
    "order",
    "--modalities",
    "frame",
    "--n-query",
    "3",
    "--episodes",
    "200",
]
# Enough steps to learn from twelve orders what position means, not enough to take a minute.
BRIEF = ["train.steps=20", "train.tasks=2", "train.query=3", "train.evaluate_every=10",
         "train.evaluate_episodes=20", "train.optimiser=adam", "train.rate=1e-3", "train.mix=0"]  # fmt: skip
SMALL = ["width=32", "cardinalities=2"]
READERS = {
    "otam": [],
    "trx": [*SMALL, *BRIEF],
    "hyrsm": ["position_a=640", *BRIEF],  # features as small as its position code
}


def fsmm(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "fsmm", *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of the small demo set: clips made, decoded and encoded."""
    home = tmp_path_factory.mktemp("demo")
    places = ["--data", str(home / "clips"), "--cache", str(home / "cache")]
    fsmm("extract", "--dataset", "demo", "--small", "--streams", "frame", *places)
    return home / "cache"


def accuracy(cache: Path, method: str, settings: list[str]) -> float:
    """Mean accuracy over episodes of novel orders."""
    pairs = [word for pair in settings for word in ("--set", pair)]
    out = cache.parent / "runs" / method
    words = ["--method", method, *TASK, *pairs, "--cache", str(cache), "--out", str(out), "--json"]
    found = json.loads(fsmm("episode-eval", *words))
    return float(found["accuracy"])


def test_the_mean_over_time_is_at_chance(cache: Path) -> None:
    assert abs(accuracy(cache, "protonet", []) - CHANCE) < CLOSE


@pytest.mark.parametrize("method", READERS)
def test_heads_that_read_time_are_not(cache: Path, method: str) -> None:
    assert accuracy(cache, method, READERS[method]) > CHANCE + 2 * CLOSE
