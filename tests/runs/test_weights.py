"""Runs whose modalities base episodes weigh: what they store and print, and what they do without base classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import synthetic_cache

import fsmm
from fsmm.cache.catalog import Catalog
from fsmm.commands.tables import show_run
from fsmm.episodes.protocol import Protocol


def evaluate(cache: Path, weights: str, **given: Any) -> Any:
    return fsmm.episode_eval(
        "protonet",
        cache=cache,
        protocol=Protocol(n_query=5, **given),
        episodes=300,
        settings={"fusion.weights": weights},
        out=cache / weights,
    )


def test_a_run_stores_and_prints_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    streams = {"frame/net": (1, 16), "audio/net": (1, 1)}
    cache = synthetic_cache(tmp_path, classes=24, streams=streams, noise=1.0)
    found = evaluate(cache, "base")
    weights = found.metrics["modality_weights"]
    assert weights["share"]["frame"] > weights["share"]["audio"]
    assert weights["gain"] > weights["gain_interval"] > 0
    equal = evaluate(cache, "equal")
    assert equal.metrics["modality_weights"]["share"] == {"frame": 0.5, "audio": 0.5}
    assert equal.metrics["modality_weights"]["gain"] is None
    assert found.mean > equal.mean
    assert evaluate(cache, "base", seed=1).metrics["modality_weights"] == weights, "they are of no run's seed"
    show_run(found.metrics)
    assert "minus equal ones" in " ".join(capsys.readouterr().out.split())


def test_weights_stay_equal_with_a_note_where_there_are_no_base_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = synthetic_cache(tmp_path, classes=9)
    catalog = Catalog.read(cache / "toy")
    labels = catalog.labels()
    catalog.label_sets["event"] = replace(labels, splits={"default": np.full(9, 3)})
    catalog.write(cache / "toy")
    found = evaluate(cache, "base")
    assert "no clips of base classes" in found.metrics["modality_weights"]["note"]
    assert found.mean == evaluate(cache, "equal").mean
    show_run(found.metrics)
    assert "equal; weights could not be fitted" in " ".join(capsys.readouterr().out.split())
