"""Accuracy against cost: time, memory and parameters, and the runs that no other one beats in accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .data import ReportRun, Task
from .grids import MOST_TASKS, short_names
from .marks import Entry, entries
from .parts import COLOURS, Figure, Section, plot_of

_KINDS = (
    ("needs no training", "circle", lambda run: run.free),
    ("other, inductive", "square", lambda run: not run.free and not run.transductive),
    ("other, transductive", "diamond", lambda run: not run.free and run.transductive),
)


def cost_section(tasks: Sequence[Task]) -> Section | None:
    """Accuracy against seconds, memory and parameters for each task of two runs or more."""
    figures = []
    for task in [task for task in tasks if len(task.runs) > 1][:MOST_TASKS]:
        heads = entries(task.runs)
        timed = [Point.of(head, seconds) for head in heads if head.first.number("eval_seconds")]
        held = [Point.of(head, _memory) for head in heads if _memory(head.first)]
        learned = [Point.of(head, _parameters) for head in heads if _parameters(head.first)]
        for points, axis in (
            (timed, "training and test in s"),
            (held, "peak memory in MB"),
            (learned, "trained parameters"),
        ):
            if len(points) > 1:
                plot = _scatter(points, axis)
                figures.append(Figure(title=f"{axis}; {task.title}", plot=plot, caption=_CAPTION))
    if not figures:
        return None
    text = "Times are those of the machine that made the runs, with whatever else it did at the time; a head "
    text += "that was taken from an earlier run counts no training. A head with several training seeds is their mean. "
    text += "Heads without parameters are in no figure of those."
    return Section(name="cost", title="Accuracy against cost", text=text, figures=figures)


_CAPTION = "The line is the Pareto front: no other run is at least as accurate for less."


def seconds(run: ReportRun) -> float:
    """The time of training and test in seconds."""
    return (run.number("train_seconds") or 0.0) + (run.number("eval_seconds") or 0.0)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """The numbers of the points (cost, accuracy) that no other point beats, by rising cost.

    >>> pareto([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9)])
    [0, 2]
    """
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def _memory(run: ReportRun) -> float:
    return run.number("peak_memory_mb") or 0.0


def _parameters(run: ReportRun) -> float:
    return run.number("parameters") or 0.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """A head by its cost and its accuracy, as the mean over its training seeds."""

    cost: float
    """The cost: seconds, MB or parameters."""
    accuracy: float
    """The accuracy in 0..1."""
    run: ReportRun
    """The run of the head's first seed."""

    @classmethod
    def of(cls, head: Entry, cost: Callable[[ReportRun], float]) -> Point:
        """The point of a head, with the cost that ``cost`` says of each of its runs."""
        spent = sum(cost(run) for run in head.runs) / len(head.runs)
        return cls(cost=spent, accuracy=head.accuracy, run=head.first)


def _scatter(points: Sequence[Point], axis: str) -> Any:
    """The heads by cost and accuracy, with the Pareto front."""
    names = dict(zip((id(point) for point in points), short_names([point.run for point in points])))
    front = pareto([(point.cost, point.accuracy) for point in points])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [points[i].cost for i in front],
            "y": [100 * points[i].accuracy for i in front],
            "line": {"color": "#7F7F7F", "shape": "hv", "width": 1},
            "hoverinfo": "skip",
        }
    ]
    for number, (kind, symbol, belongs) in enumerate(_KINDS):
        some = [point for point in points if belongs(point.run)]
        if some:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [point.cost for point in some],
                    "y": [100 * point.accuracy for point in some],
                    "text": [names[id(point)] for point in some],
                    "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.1f} %<extra></extra>",
                    "marker": {"size": 9, "symbol": symbol, "color": COLOURS[number]},
                }
            )
    axes = {"title": {"text": axis}, "type": "log"}
    return plot_of(traces, xaxis=axes, yaxis_title="accuracy in %")
