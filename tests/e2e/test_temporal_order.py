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
    "strm": [*SMALL, *BRIEF],
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


def interval(cache: Path, method: str, settings: list[str]) -> tuple[float, float]:
    """Mean accuracy over novel orders and its 95 % half width over clips, of which there are few."""
    pairs = [word for pair in settings for word in ("--set", pair)]
    out = cache.parent / "runs" / method
    words = ["--method", method, *TASK, *pairs, "--cache", str(cache), "--out", str(out), "--json"]
    found = json.loads(fsmm("episode-eval", *words))
    return found["accuracy"], found["ci95_clips"]


def test_the_mean_over_time_is_at_chance(cache: Path) -> None:
    mean, around = interval(cache, "protonet", [])
    assert abs(mean - CHANCE) < 1.5 * around


@pytest.mark.parametrize("method", READERS)
def test_heads_that_read_time_are_not(cache: Path, method: str) -> None:
    mean, around = interval(cache, method, READERS[method])
    assert mean - 1.5 * around > CHANCE
