"""Relation graphs as a user meets them: made by one command, named to a head, and missing in one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fsmm.cache.relations.graph import path_of
from fsmm.cli import app
from fsmm.errors import FsmmError

EVALUATE = ("episode-eval", "--method", "few-shot-egocentric", "--episodes", 20, "--n-way", 3, "--n-query", 2)


def said(*words: object) -> Any:
    """What a command prints as JSON."""
    done = CliRunner().invoke(
        app, [*map(str, words), "--json"], catch_exceptions=False, standalone_mode=False
    )
    return json.loads(done.stdout)


def test_a_graph_is_made_named_and_trained_with(make_cache: Callable[..., Path]) -> None:
    cache = make_cache()
    made = said("cache", "graph", "--cache", cache)
    assert made["name"] == "word-likeness"
    assert made["edges"] > 0
    assert made["unknown"] == []
    assert path_of(cache / made["dataset"], "word-likeness").is_file()
    by_words, by_graph = (
        said(
            *EVALUATE,
            "--cache",
            cache,
            "--set",
            f"graph={name}",
            "--set",
            "train.steps=2",
            "--set",
            "train.evaluate_every=1",
        )
        for name in ("words", "word-likeness")
    )
    assert by_words["accuracy"] > 1 / 3
    assert by_graph["accuracy"] > 1 / 3


def test_what_is_missing_is_one_sentence(make_cache: Callable[..., Path]) -> None:
    cache = make_cache()
    command = [*EVALUATE, "--cache", cache, "--set", "graph=wordnet"]
    done = subprocess.run(
        [sys.executable, "-m", "fsmm", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "fsmm cache graph" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(FsmmError, match="give it by --data"):
        said("cache", "graph", "--source", "conceptnet", "--cache", cache)
