"""Accuracy under uneven queries: fewer classes that have some, uneven shares, and fewer queries, side by side.

A transductive head decides the queries of an episode together. What it takes for granted of them shows in how its
accuracy falls along each of the three axes, which share one scale and one legend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..task_text import described_task
from .curves import Curve, barred, figures_along, guessing, labelled
from .data import ReportRun, StudyData
from .parts import Figure, Section, plot_of

OVER = "ci95"
"""The name of the half widths in a run: over draws of episodes, which all panels have."""
GAP = 0.04
"""The share of a figure's width between two panels."""
HEIGHT = 520


def stress_section(data: StudyData) -> Section | None:
    """Accuracy by the classes that queries come from, by their imbalance and by their number; None where none vary."""
    figures = [stress_figure(panels) for panels in panels_of(data.runs)]
    text = (
        "A transductive head decides an episode's queries together, and may rely on every class having as many. "
        "Effective classes of Dirichlet queries are 1 / the expected sum of squared shares: of N classes whose shares "
        "follow Dirichlet(α), (Nα + 1) / (α + 1); a run's own figure of the name counts the classes that have a query."
    )
    return Section(name="stress", title="Uneven queries", text=text, figures=figures) if figures else None


@dataclass(frozen=True, kw_only=True)
class Stress:
    """One way in which queries may be uneven."""

    field: str
    """The field of the protocol that varies."""
    place: Callable[[ReportRun], float | None]
    """A run's place on the axis; None for a run that is uneven in another way."""
    label: str
    """The label of the axis."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves of one task along one axis."""

    stress: Stress
    """The axis."""
    curves: Sequence[Curve]
    """The heads along it."""

    @property
    def first(self) -> ReportRun:
        """A run of the panel."""
        return self.curves[0].points[0][1]


def _ways(run: ReportRun) -> int | None:
    """The classes of an episode; None where episodes differ in them, or take all classes."""
    way = run.protocol.n_way
    return way if isinstance(way, int) and way > 0 else None


def _query_classes(run: ReportRun) -> float | None:
    way = _ways(run)
    return None if way is None else float(run.protocol.query_classes or way)


def _effective_classes(run: ReportRun) -> float | None:
    way, alpha = _ways(run), run.protocol.dirichlet
    if way is None or run.protocol.query_classes is not None:
        return None
    return float(way) if alpha is None else (way * alpha + 1) / (alpha + 1)


STRESSES = (
    Stress(field="query_classes", place=_query_classes, label="classes that have queries"),
    Stress(field="dirichlet", place=_effective_classes, label="effective classes of Dirichlet queries"),
    Stress(field="n_query", place=lambda run: float(run.protocol.n_query), label="queries a class"),
)
"""The panels of a figure, from the left."""


def panels_of(runs: Sequence[ReportRun]) -> list[list[Panel]]:
    """The panels of each figure: those of one task, at most one for each way of being uneven."""
    figures: dict[str, list[list[Panel]]] = {}
    for stress in STRESSES:
        for _, curves in figures_along(runs, stress.place, stress.field):
            panel = Panel(stress=stress, curves=curves)
            rows = figures.setdefault(_task_of(panel.first), [])
            free = next((row for row in rows if all(other.stress != stress for other in row)), None)
            if free is None:
                rows.append(free := [])
            free.append(panel)
    return [row for rows in figures.values() for row in rows]


def _task_of(run: ReportRun) -> str:
    """What a figure's runs share: their task without what makes queries uneven."""
    even = {stress.field: None for stress in STRESSES}
    fingerprint = run.metrics.get("fingerprint")
    return json.dumps([run.dataset, fingerprint, {**run.protocol.to_dict(), **even}], default=str)


def stress_figure(panels: Sequence[Panel]) -> Figure:
    """The panels of one task side by side; a head has one colour and one place in the legend."""
    heads: dict[str, int] = {}
    traces: list[Any] = []
    layout: dict[str, Any] = {}
    width = (1 - GAP * (len(panels) - 1)) / len(panels)
    for number, panel in enumerate(panels):
        key, left = "" if number == 0 else str(number + 1), number * (width + GAP)
        layout[f"xaxis{key}"] = {
            **labelled(panel.stress.label, panel.curves),
            "domain": [left, min(left + width, 1.0)],
            "anchor": "y",
        }
        for curve in panel.curves:
            new = curve.head not in heads
            colour = heads.setdefault(curve.head, len(heads))
            more = {"xaxis": f"x{key}", "legendgroup": curve.head, "showlegend": new}
            traces.append(barred(curve, colour, over=OVER, **more))
    plot = plot_of(traces, height=HEIGHT, yaxis_title="accuracy in %", **layout)
    return Figure(title=_title(panels[0]), plot=plot, caption=_caption(panels), wide=len(panels) > 1)


def _title(panel: Panel) -> str:
    """The task of a figure, without what makes queries uneven."""
    run = panel.first
    even = replace(run.protocol, dirichlet=None, query_classes=None)
    parts = [part for part in described_task(even).split("; ") if not part.endswith("queries a class")]
    return f"{run.dataset}, {'; '.join(parts)}"


def _caption(panels: Sequence[Panel]) -> str:
    """What a reader must know to read the panels."""
    counts = {p.first.protocol.n_query for p in panels if p.stress.field != "n_query"}
    asked = (
        f" Where its axis does not say it, a task has {counts.pop()} queries a class."
        if len(counts) == 1
        else ""
    )
    return f"Bars are 95 % intervals over draws of episodes.{asked}{guessing(panels[0].curves)}"
