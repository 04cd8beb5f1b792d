"""Matrices from training to test: each kind has its own cells, and seeds are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fsmm.studies.report.data import ReportRun, StudyData
from fsmm.studies.report.parts import Figure

pytest.importorskip("plotly")

BOTH = {"audio": "audio/net", "frame": "frame/net"}


def made(name: str, accuracy: float, *, dataset: str = "toy", seed: int = 0, **given: Any) -> ReportRun:
    """A run of a trained head on two modalities; given: values of its protocol or of its configuration."""
    sides = {key: given.pop(key) for key in ("support_modalities", "query_modalities") if key in given}
    protocol = {"n_way": 5, "k_shot": 1, **sides}
    config = {"method": "common-space", "dataset": dataset, "protocol": protocol, "train_seed": seed, **given}
    metrics = {"accuracy": accuracy, "streams": BOTH, "parameters": 9, "fingerprint": dataset}
    return ReportRun(name=name, folder=Path(name), config=config, metrics=metrics, arrays={})


def figures(*runs: ReportRun) -> list[Figure]:
    from fsmm.studies.report.matrices import matrix_section

    section = matrix_section(StudyData(title="t", folder=Path(), runs=runs))
    return [] if section is None else list(section.figures)


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


def test_a_diagonal_alone_is_no_matrix() -> None:
    assert figures(made("one", 0.5), made("two", 0.6, dataset="b")) == []
