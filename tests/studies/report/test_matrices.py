"""Matrices from training to test: each kind has its own cells, and seeds are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fsmm.studies.report.data import ReportRun, StudyData
from fsmm.studies.report.marks import marks_of
from fsmm.studies.report.parts import Figure, Section, Table

pytest.importorskip("plotly")

BOTH = {"audio": "audio/net", "frame": "frame/net"}


def made(name: str, accuracy: float, *, dataset: str = "toy", seed: int = 0, **given: Any) -> ReportRun:
    """A run of a trained head on two modalities; given: values of its protocol or of its configuration."""
    asked = ("support_modalities", "query_modalities", "k_shot")
    sides = {key: given.pop(key) for key in asked if key in given}
    protocol = {"n_way": 5, "k_shot": 1, **sides}
    config = {"method": "common-space", "dataset": dataset, "protocol": protocol, "train_seed": seed, **given}
    learned = 9 if config["method"] == "common-space" else 0
    metrics = {"accuracy": accuracy, "streams": BOTH, "parameters": learned, "fingerprint": dataset}
    metrics["ci95_clips"] = 0.01
    return ReportRun(name=name, folder=Path(name), config=config, metrics=metrics, arrays={})


def section_of(*runs: ReportRun) -> Section | None:
    from fsmm.studies.report.matrices import matrix_section

    data = StudyData(title="t", folder=Path(), runs=runs)
    return matrix_section(data, {name: mark for task in data.tasks for name, mark in marks_of(task).items()})


def figures(*runs: ReportRun) -> list[Figure]:
    section = section_of(*runs)
    return [] if section is None else list(section.figures)


def tables(*runs: ReportRun) -> list[Table]:
    section = section_of(*runs)
    assert section is not None
    return list(section.tables)


def cells(figure: Figure) -> dict[tuple[str, str], float]:
    """The values of a matrix by row and column."""
    trace = figure.plot.data[0]
    return {
        (row, column): value
        for row, values in zip(trace.y, trace.z)
        for column, value in zip(trace.x, values)
        if value is not None
    }


def side(modality: str) -> dict[str, list[str]]:
    return {"support_modalities": [modality], "query_modalities": [modality]}


def test_what_supports_carry_and_what_training_clips_carry_are_two_matrices() -> None:
    crossed = {"support_modalities": ["frame"], "query_modalities": ["audio"]}
    found = figures(
        made("same", 0.9, **side("frame")),
        made("crossed", 0.3, **crossed),
        made("trained on frames, tested on audio", 0.5, train_modalities=["frame"], **side("audio")),
        made("trained on all, tested on audio", 0.6, **side("audio")),
    )
    support, training = found
    assert cells(support) == {("frame", "frame"): 90.0, ("frame", "audio"): 30.0, ("audio", "audio"): 60.0}
    all_of_it = "audio+frame"
    expected = {("frame", "audio"): 50.0, (all_of_it, "audio"): 60.0, (all_of_it, "frame"): 90.0}
    assert cells(training) == expected


def test_data_sets_of_training_and_test_with_the_mean_over_seeds() -> None:
    (matrix,) = figures(
        made("own", 0.9, dataset="a"),
        made("own again", 0.9, dataset="a"),
        made("there", 0.4, dataset="a", train_dataset="b"),
        made("there, another seed", 0.6, dataset="a", train_dataset="b", seed=1),
        made("other's own", 0.7, dataset="b"),
    )
    assert cells(matrix) == {("a", "a"): 90.0, ("b", "a"): 50.0, ("b", "b"): 70.0}


def test_heads_of_one_task_are_rows_of_one_table_with_intervals_free_ones_first() -> None:
    crossed = {"support_modalities": ["frame"], "query_modalities": ["audio"]}
    free = {"method": "protonet", "fusion": "lf"}
    one_shot, five_shot, training = tables(
        made("trained", 0.5, **crossed),
        made("trained, same", 0.9, **side("frame")),
        made("free", 0.2, **crossed, **free),
        made("free, all", 0.8, **free),
        made("other settings", 0.4, **crossed, settings={"dim": "8"}),
        made("five shots", 0.6, **crossed, k_shot=5),
    )
    columns = ("head", "frame → audio", "frame → frame", "audio+frame → audio+frame")
    assert tuple(one_shot.columns) == columns
    assert [tuple(row) for row in one_shot.rows] == [
        ("protonet (LF)", "20.0 ± 1.0", "–", "80.0 ± 1.0"),
        ("common-space", "50.0 ± 1.0", "90.0 ± 1.0", "–"),
        ("common-space, dim=8", "40.0 ± 1.0", "–", "–"),
    ]
    assert [tuple(row) for row in five_shot.rows] == [("common-space", "60.0 ± 1.0")]
    assert "1-shot" in one_shot.title
    assert "5-shot" in five_shot.title
    assert tuple(training.columns) == ("head", "audio+frame → frame")  # What learns nothing has no row there.
    assert [tuple(row) for row in training.rows] == [("common-space", "90.0 ± 1.0")]


def test_a_diagonal_alone_is_no_matrix() -> None:
    assert figures(made("one", 0.5), made("two", 0.6, dataset="b")) == []
