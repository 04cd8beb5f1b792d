"""Suggestions cover what is there before they repeat, and doubt asks about what lies between the classes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from classifier_support import NAMES, gaussian

from fsmm.runs.estimator import FewShotClassifier
from fsmm.runs.few_examples.examples import Examples
from fsmm.runs.few_examples.label_files import write_labels
from fsmm.runs.few_examples.label_tasks import interface, write_tasks
from fsmm.runs.few_examples.suggest import joint_points, suggest, typicality


def test_a_cold_start_asks_about_every_class_once() -> None:
    features, label = gaussian(20, gap=8.0)
    found = suggest(Examples.of(features), 3)
    assert sorted(label[[one.row for one in found]]) == [0, 1, 2]
    assert all(one.doubt is None and not one.probabilities for one in found)


def test_what_has_a_label_is_covered() -> None:
    features, label = gaussian(20, gap=8.0)
    clips = Examples.of(features)
    labelled = clips[np.flatnonzero(label == 1)[:10]]
    found = suggest(clips[np.arange(60)], 2, labelled=labelled)
    assert sorted(label[[one.row for one in found]]) == [0, 2]


def test_doubt_asks_about_clips_between_the_classes() -> None:
    features, label = gaussian(8, gap=6.0)
    fitted = FewShotClassifier("ridge", fusion="ec").fit(features, np.array(NAMES)[label])
    pool, truth = gaussian(20, gap=6.0, seed=1)
    between = {m: np.concatenate([x, (x[:10] + x[20:30]) / 2]) for m, x in pool.items()}
    found = suggest(Examples.of(between), 5, classifier=fitted.classifier_, strategy="doubt")
    assert all(one.row >= len(truth) for one in found[:2])
    doubt = [
        one.doubt
        for one in suggest(Examples.of(between), 70, classifier=fitted.classifier_, strategy="doubt")
    ]
    assert found[0].doubt == max(one for one in doubt if one is not None)
    assert all(one.doubt is not None and 0 <= one.doubt <= 1 for one in found)
    assert all(one.disagreement is not None and 0 <= one.disagreement <= 1 for one in found)


@pytest.mark.parametrize("count", [1, 7, 100])
def test_no_clip_is_suggested_twice_and_no_more_than_there_are(count: int) -> None:
    features, _ = gaussian(5)
    rows = [one.row for one in suggest(Examples.of(features), count)]
    assert len(rows) == len(set(rows)) == min(count, 15)


def test_points_of_clips_without_a_modality_are_of_length_one_too() -> None:
    features, _ = gaussian(5)
    features["audio"][3] = np.nan
    points = joint_points(Examples.of(features))
    assert np.linalg.norm(points, axis=1) == pytest.approx(1, abs=1e-5)
    assert typicality(points[:1]).tolist() == [0]


def test_tasks_are_written_for_label_studio(tmp_path: Path) -> None:
    rows = [{"path": "/a.mp4", "suggested": "run", "probability": 0.5, "typical": 0.1}]
    write_tasks(rows, tmp_path / "tasks.json")
    assert '"choices": [\n' in (tmp_path / "tasks.json").read_text()
    write_tasks(rows, tmp_path / "tasks.csv")
    assert (tmp_path / "tasks.csv").read_text().splitlines()[0] == "path,label,suggested,probability,typical"
    assert interface(["a"]).count("<Choice ") == 1


def test_no_table_of_decisions_holds_a_formula(tmp_path: Path) -> None:
    """Names of classes come from whoever made the model, and spreadsheets open the tables."""
    name = "=HYPERLINK(A1)"
    rows = [{"path": "/a.mp4", "suggested": name, "probability": 0.5, "typical": -0.1}]
    write_tasks(rows, tmp_path / "tasks.csv")
    decided = {
        "path": "/a.mp4",
        "label": name,
        "probability": 0.5,
        "set": [name],
        "probabilities": {name: -0.5},
    }
    write_labels([decided], tmp_path / "labels.csv")
    for path in (tmp_path / "tasks.csv", tmp_path / "labels.csv"):
        with open(path, newline="") as file:
            header, row = csv.reader(file)
        assert f"'{name}" in row
        assert not any(cell.startswith("=") for cell in [*header, *row])
        assert row[header.index("probability")] == "0.5"
