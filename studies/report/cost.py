"""Accuracy against cost: time, memory and parameters, and the runs that no other one beats in accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .data import ReportRun, Task
from .grids import MOST_TASKS, distinct, short_names
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
        runs = distinct(task.runs)
        timed = [(seconds(run), run) for run in runs if run.number("eval_seconds")]
        held = [(memory, run) for run in runs if (memory := run.number("peak_memory_mb"))]
        learned = [(count, run) for run in runs if (count := run.number("parameters"))]
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
    text += "that was taken from an earlier run counts no training. Heads without parameters are in no figure of those."
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


def _scatter(points: Sequence[tuple[float, ReportRun]], axis: str) -> Any:
    """The runs by cost and accuracy, with the Pareto front."""
    names = dict(zip((id(run) for _, run in points), short_names([run for _, run in points])))
    front = pareto([(cost, run.accuracy) for cost, run in points])
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": "Pareto front",
            "x": [points[i][0] for i in front],
            "y": [100 * points[i][1].accuracy for i in front],
            "line": {"color": "#7F7F7F", "shape": "hv", "width": 1},
            "hoverinfo": "skip",
        }
    ]
    for number, (kind, symbol, belongs) in enumerate(_KINDS):
        some = [(cost, run) for cost, run in points if belongs(run)]
        if some:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": kind,
                    "x": [cost for cost, _ in some],
                    "y": [100 * run.accuracy for _, run in some],
                    "text": [names[id(run)] for _, run in some],
                    "hovertemplate": "%{text}<br>%{x:.3g}, %{y:.1f} %<extra></extra>",
                    "marker": {"size": 9, "symbol": symbol, "color": COLOURS[number]},
                }
            )
    axes = {"title": {"text": axis}, "type": "log"}
    return plot_of(traces, xaxis=axes, yaxis_title="accuracy in %")
