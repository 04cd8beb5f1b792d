"""A run whose files were edited by hand: whatever value stands there, it is one sentence and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests_support import sentence_of

from fsmm.machine.digests import SUMS
from fsmm.runs.layout import EPISODES
from fsmm.runs.listing import described
from fsmm.runs.store import load_run, save_run

CONFIG = {"method": "protonet", "dataset": "toy", "protocol": {"n_way": 5, "k_shot": 1}, "settings": {}}
METRICS = {
    "accuracy": 0.5,
    "ci95_clips": 0.1,
    "eval_seconds": 1.5,
    "episodes": 4,
    "streams": {"frame": "frame/a"},
    "per_class": {"a": 0.5},
    "choices": [{"what": "recipe", "on": "none", "value": {}}],
    "notes": ["A note."],
    "training": {"curve": [{"step": 1, "loss": None, "val": 0.5}], "notes": []},
    "pretraining": None,
}
ARRAYS: Mapping[str, np.ndarray] = {
    "accuracy": np.zeros(4, np.float32),
    "confusion": np.eye(3, dtype=np.int64),
    "class_names": np.array(list("abc")),
    "right_bits": np.zeros((4, 2), np.uint8),
    "clip_class": np.zeros(9, np.int32),
    "clip_row": np.arange(9),
    "transductive": np.array(False),
    "draws_version": np.array(1),
    "draws_check": np.array("0"),
}
WRONG = ["three", -1.5, [1], {"a": 1}, True, "half \ud800"]
# Of the values of WRONG, those that the key may have.
RIGHT: Mapping[str, list[Any]] = {
    "method": ["three"],
    "dataset": ["three"],
    "accuracy": [-1.5],
    "ci95_clips": [-1.5],
    "eval_seconds": [-1.5],
    "per_class": [{"a": 1}],
    "training": [{"a": 1}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run, without the digests that would tell of every change."""
    save_run(tmp_path / "run", CONFIG, METRICS, ARRAYS)
    (tmp_path / "run" / SUMS).unlink()
    return tmp_path / "run"


@pytest.mark.parametrize(("name", "table"), [("config.json", CONFIG), ("metrics.json", METRICS)])
def test_every_value_of_another_kind_is_refused(folder: Path, name: str, table: Mapping[str, Any]) -> None:
    for key in table:
        for value in WRONG:
            if value not in RIGHT.get(key, []):
                (folder / name).write_text(json.dumps({**table, key: value}))
                assert name in sentence_of(load_run, folder), (key, value)
                assert name in described(folder).fault


@pytest.mark.parametrize(
    "values",
    [
        *(
            {key: value}
            for key in ("support_modalities", "query_modalities", "query_groups")
            for value in (3, [1])
        ),
        *(
            {key: value}
            for key in ("split", "label_set", "class_split", "seed")
            for value in ({}, [[1]], 2.5)
        ),
        *({key: [{"modality": 3, "rate": 0.5}]} for key in ("missing", "noisy")),
        *({"n_way": value} for value in ("five", [1], None, -3, 1e308)),
    ],
)
def test_a_protocol_that_nobody_asked_for_is_refused(folder: Path, values: Mapping[str, Any]) -> None:
    config = {**CONFIG, "protocol": {"n_way": 5, "k_shot": 1, **values}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json" in sentence_of(load_run, folder)


def test_what_older_releases_did_not_write_may_be_missing(folder: Path) -> None:
    for key in set(METRICS) - {"accuracy"}:
        (folder / "metrics.json").write_text(json.dumps({k: v for k, v in METRICS.items() if k != key}))
        assert load_run(folder)[1]["accuracy"] == 0.5
    (folder / "metrics.json").write_text(json.dumps({**METRICS, "of a later release": [1]}))
    assert load_run(folder)[1]["of a later release"] == [1]


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_of_another_kind_is_refused(folder: Path, name: str) -> None:
    found = ARRAYS[name]
    for other in (found[None], np.zeros(found.shape, "c8")):
        np.savez(folder / EPISODES, **{**ARRAYS, name: other})
        assert f"{EPISODES} is not as fsmm writes it: {name}" in sentence_of(load_run, folder)


@pytest.mark.parametrize("name", ["right_bits", "clip_row", "confusion"])
def test_arrays_that_do_not_fit_together_are_refused(folder: Path, name: str) -> None:
    np.savez(folder / EPISODES, **{**ARRAYS, name: ARRAYS[name][:-1]})
    assert f"{name} has {len(ARRAYS[name]) - 1} entries" in sentence_of(load_run, folder)
