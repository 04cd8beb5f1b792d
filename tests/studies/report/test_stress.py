"""The figure on uneven queries: one a task, with a panel for each way of being uneven and one legend."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fsmm.studies.report.data import ReportRun, StudyData
from fsmm.studies.report.parts import Figure
from fsmm.studies.report.stress import stress_section

pytest.importorskip("plotly")
WAY = 5


def run_of(method: str, accuracy: float, **protocol: Any) -> ReportRun:
    """A run of a head; protocol: what is not as in a task of 15 queries of each of five classes."""
    config = {
        "method": method,
        "dataset": "toy",
        "protocol": {"n_way": WAY, "k_shot": 1, "n_query": 15, **protocol},
    }
    metrics = {"accuracy": accuracy, "ci95": 0.01, "streams": {"frame": "frame/net"}, "fingerprint": "toy"}
    name = f"{method}-{protocol}"
    return ReportRun(name=name, folder=Path(name), config=config, metrics=metrics, arrays={})


def figures(*runs: ReportRun) -> list[Figure]:
    section = stress_section(StudyData(title="t", folder=Path(), runs=runs))
    return [] if section is None else list(section.figures)


def stressed(method: str, **protocol: Any) -> list[ReportRun]:
    """Runs of a head along all three axes, whose accuracy says where on its axis each of them is."""
    return [
        run_of(method, 0.5, **protocol),
        *(run_of(method, c / 100, query_classes=c, **protocol) for c in (1, 2)),
        *(run_of(method, alpha / 100, dirichlet=alpha, **protocol) for alpha in (3.0, 1.0)),
        *(run_of(method, n / 100, **{**protocol, "n_query": n}) for n in (1, 4)),
    ]


def test_a_task_has_one_figure_with_a_panel_for_each_axis() -> None:
    runs = [run for shot in (1, 5) for method in ("tim", "ptmap") for run in stressed(method, k_shot=shot)]
    found = figures(*runs)
    assert [figure.title for figure in found] == ["toy, 5-way 1-shot", "toy, 5-way 5-shot"]
    for figure in found:
        drawn = {(trace.xaxis, trace.name): trace for trace in figure.plot.data}
        assert len(drawn) == len(figure.plot.data) == 6
        for method in ("tim", "ptmap"):
            classes, shares, queries = (drawn[axis, method] for axis in ("x", "x2", "x3"))
            assert dict(zip(classes.x, classes.y)) == pytest.approx({1: 1, 2: 2, 5: 50})
            # Five shares that follow Dirichlet(a) have an expected sum of squares of (a + 1) / (5 a + 1).
            assert dict(zip(shares.x, shares.y)) == pytest.approx({6 / 2: 1, 16 / 4: 3, 5: 50})
            assert dict(zip(queries.x, queries.y)) == pytest.approx({1: 1, 4: 4, 15: 50})
            assert len({trace.line.color for trace in (classes, shares, queries)}) == 1
            assert [trace.showlegend for trace in (classes, shares, queries)] == [True, False, False]
        ends = [figure.plot.layout[axis].domain for axis in ("xaxis", "xaxis2", "xaxis3")]
        assert all(left[1] < right[0] for left, right in pairwise(ends))
        assert "15 queries a class" in figure.caption
        assert "20 %" in figure.caption


def test_an_axis_along_which_nothing_varies_has_no_panel() -> None:
    (figure,) = figures(run_of("tim", 0.5), run_of("tim", 0.4, query_classes=2))
    assert len(figure.plot.data) == 1
    assert figures(run_of("tim", 0.5), run_of("ptmap", 0.5)) == []
