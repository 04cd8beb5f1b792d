"""Heat maps of classes and modalities: per class, confusion, reliability, and what carries a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .data import ReportRun, StudyData, Task
from .marks import entries
from .parts import COLOURS, SCALE, Figure, Section, Table, differing, percent, plot_of

MOST_TASKS = 6
"""Figures a task are made for this many tasks, those with the most runs."""
MOST_RUNS = 12
"""The number of runs in a heat map of classes."""
MOST_FIGURES = 12


def classes_section(tasks: Sequence[Task]) -> Section | None:
    """The accuracy of each class by each of the best runs of a task."""
    figures = []
    for task in several(tasks)[:MOST_TASKS]:
        runs = [run for run in first_seeds(task.runs) if run.metrics.get("per_class")]
        best = runs[:MOST_RUNS]
        if not best:
            continue
        classes = sorted(_per_class(best[0]), key=lambda name: _per_class(best[0])[name])
        values = [[_per_class(run).get(name) for run in best] for name in classes]
        names = [f"{i}. {name}" for i, name in enumerate(short_names(best), 1)]
        plot = heat_map(values, names, classes, height=220 + 24 * len(classes), whole=False)
        left = f" The best {len(best)} of {len(runs)} runs are shown." if len(runs) > len(best) else ""
        caption = f"Accuracy in %; classes by the accuracy of the best run, hardest below.{left}"
        figures.append(Figure(title=task.title, plot=plot, caption=caption, wide=True))
    if not figures:
        return None
    notes = left_out(len(several(tasks)), MOST_TASKS, "tasks")
    return Section(name="classes", title="Accuracy of each class", figures=figures, notes=notes)


def confusion_section(tasks: Sequence[Task]) -> Section | None:
    """Which classes the best run of each task takes for which."""
    figures = []
    for task in several(tasks)[:MOST_TASKS]:
        best = first_seeds(task.runs)[0]
        if "confusion" not in best.arrays or "class_names" not in best.arrays:
            continue
        counts, names = best.arrays["confusion"], best.arrays["class_names"].tolist()
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        plot = heat_map(
            shares.tolist(), names, names, x="taken for", y="true class", height=200 + 26 * len(names)
        )
        caption = "The share of a class's queries in %. An episode holds some of the classes, so rows are not those of "
        caption += "a choice among all."
        figures.append(Figure(title=f"{best.name}; {task.title}", plot=plot, caption=caption, wide=True))
    if not figures:
        return None
    notes = left_out(len(several(tasks)), MOST_TASKS, "tasks")
    return Section(name="confusion", title="Confusion of the best run", figures=figures, notes=notes)


def reliability_section(data: StudyData) -> Section | None:
    """How certain each modality is, and how often one is right where another is wrong, where runs stored it."""
    measured = [run for run in data.runs if run.metrics.get("reliability")]
    figures, tables = [], []
    for run in measured[:MOST_FIGURES]:
        found = run.metrics["reliability"]
        rows = [
            (m, percent(f["accuracy"]), f"{f['certainty']:.3f}", f"{f['negative_entropy']:.3f}")
            for m, f in found["modalities"].items()
        ]
        columns = ("modality alone", "accuracy in %", "certainty", "negative entropy in nats")
        tables.append(Table(title=run.name, columns=columns, rows=rows))
        names = list(found["modalities"])
        cross = found["right_where_other_is_wrong"]
        values = [[cross.get(a, {}).get(b) for b in names] for a in names]
        plot = heat_map(values, names, names, x="where this one is wrong", y="this one is right", height=240)
        figures.append(
            Figure(title=f"Complementarity: {run.name}", plot=plot, caption="Shares in %.", wide=True)
        )
    if not measured:
        return None
    notes = left_out(len(measured), MOST_FIGURES, "runs")
    return Section(
        name="reliability", title="Reliability of modalities", figures=figures, tables=tables, notes=notes
    )


def carried_section(tasks: Sequence[Task]) -> Section | None:
    """Which modality carries each class: the accuracy of each one alone, and what fusion adds."""
    figures, tables = [], []
    for task in tasks:
        for fused, alone in fused_runs(task):
            figures.append(_carried_figure(task, fused, alone))
            tables.append(_carried_table(task, fused, alone))
    if not figures:
        return None
    notes = left_out(len(figures), MOST_FIGURES, "pairs of a fused run and its modalities alone")
    text = "A method on each modality alone and on several together, a class a row."
    return Section(
        name="carried",
        title="Which modality carries each class",
        text=text,
        figures=figures[:MOST_FIGURES],
        tables=tables[:MOST_FIGURES],
        notes=notes,
    )


def fused_runs(task: Task) -> list[tuple[ReportRun, dict[str, ReportRun]]]:
    """Each run of several modalities with the runs of the same method on each of them alone, where all are there."""
    runs = [run for run in distinct(task.runs) if run.metrics.get("per_class")]
    single = {(run.base, run.modalities[0]): run for run in reversed(runs) if len(run.modalities) == 1}
    found = []
    for run in runs:
        alone = {m: single[run.base, m] for m in run.modalities if (run.base, m) in single}
        if len(run.modalities) > 1 and len(alone) == len(run.modalities):
            found.append((run, alone))
    return found


def _carried_table(task: Task, fused: ReportRun, alone: Mapping[str, ReportRun]) -> Table:
    rows = []
    for name, together in sorted(_per_class(fused).items(), key=lambda item: -item[1]):
        by_modality = {m: _per_class(run).get(name, 0.0) for m, run in alone.items()}
        carrier = max(by_modality, key=lambda m: by_modality[m])
        gain = together - by_modality[carrier]
        cells = [percent(value) for value in by_modality.values()]
        rows.append((name, carrier, *cells, percent(together), percent(gain, signed=True)))
    columns = ("class", "carried by", *(f"{m} alone" for m in alone), "together", "fusion adds")
    title = f"{fused.method}; {task.title}"
    return Table(title=title, columns=columns, rows=rows, caption="Accuracy in %; what is added, in points.")


def _carried_figure(task: Task, fused: ReportRun, alone: Mapping[str, ReportRun]) -> Figure:
    classes = sorted(_per_class(fused), key=lambda name: _per_class(fused)[name])
    named = {**{f"{m} alone": run for m, run in alone.items()}, "together": fused}
    traces = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [100 * _per_class(run).get(c, 0.0) for c in classes],
            "y": classes,
            "marker": {
                "size": 11,
                "color": COLOURS[number % len(COLOURS)],
                "symbol": ("circle", "square", "triangle-up", "cross")[number % 4]
                if name != "together"
                else "diamond-open",
                "line": {"width": 2},
            },
        }
        for number, (name, run) in enumerate(named.items())
    ]
    plot = plot_of(traces, height=140 + 26 * len(classes), xaxis_title="accuracy in %")
    return Figure(title=f"{fused.method}; {task.title}", plot=plot)


def distinct(runs: Sequence[ReportRun]) -> list[ReportRun]:
    """The runs of a task without those that ask for the same once more, such as the rate 0 of several sweeps."""
    return [run for head in entries(runs) for run in head.runs]


def first_seeds(runs: Sequence[ReportRun]) -> list[ReportRun]:
    """The first training seed of each head of a task, the head with the best mean over its seeds first.

    The best of several seeds is never picked.
    """
    return [head.first for head in sorted(entries(runs), key=lambda head: -head.accuracy)]


def several(tasks: Sequence[Task]) -> Sequence[Task]:
    """The tasks of several heads; all tasks where none has several."""
    return [task for task in tasks if len({run.head for run in task.runs}) > 1] or tasks


def short_names(runs: Sequence[ReportRun]) -> list[str]:
    """What tells runs of one task apart; their names where that is not enough."""
    told = [
        {"method": run.method, "modalities": "+".join(run.modalities), "settings": run.settings}
        for run in runs
    ]
    names = differing(told)
    return names if len(set(names)) == len(names) else [run.name for run in runs]


def _per_class(run: ReportRun) -> Mapping[str, float]:
    """The accuracy of each class; one that was never asked for may have none."""
    return {name: value for name, value in run.metrics["per_class"].items() if value is not None}


def left_out(count: int, most: int, what: str) -> list[str]:
    """The note on figures that are not drawn, where there are more than ``most``."""
    return [f"{count - most} further {what} are not drawn; the tables beside this page hold all."] * (
        count > most
    )


def heat_map(
    values: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    x: str = "",
    y: str = "",
    height: int,
    whole: bool = True,
) -> Any:
    """A heat map of shares, written in per cent; ``whole`` colours go from 0 to 100, others from the least value on."""
    import plotly.graph_objects as go

    scaled = [[None if v is None else round(100 * v, 1) for v in row] for row in values]
    few = len(rows) * len(columns) <= 400
    trace = go.Heatmap(
        z=scaled,
        x=list(columns),
        y=list(rows),
        colorscale=SCALE,
        zmin=0 if whole else None,
        zmax=100 if whole else None,
        texttemplate="%{z:.0f}" if few else None,
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )
    plot = plot_of([trace], height=height, xaxis_title=x or None, yaxis_title=y or None)
    plot.update_xaxes(type="category")
    plot.update_yaxes(type="category")
    return plot
