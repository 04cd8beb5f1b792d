"""The variants of a block side by side, as bars with their intervals over clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .data import ReportRun, StudyData, Task
from .parts import COLOURS, Figure, Section, plot_of


def bars_section(data: StudyData) -> Section | None:
    """A bar chart for each task of each block of the study that asks for one; None where none does."""
    asked: Sequence[Mapping[str, Any]] = data.about.get("blocks") or ()
    wanted = {
        str(block["name"]): str(block.get("title") or "") for block in asked if block.get("chart") == "bars"
    }
    figures = []
    for name, title in wanted.items():
        for task in data.tasks:
            own = {id(run) for run in task.runs}
            bars: dict[str, list[ReportRun]] = {}
            for row, run in data.asked:
                if row.block == name and id(run) in own:
                    bars.setdefault(str(row.varies.get("variant") or row.label), []).append(run)
            if len(bars) > 1:
                figures.append(_figure(title or name, task, bars))
    return Section(name="blocks", title="Variants side by side", figures=figures) if figures else None


def _figure(title: str, task: Task, bars: Mapping[str, Sequence[ReportRun]]) -> Figure:
    """The bars of a block on one task; several runs of a variant (seeds of a training) are one bar, their mean."""
    values = [100 * float(np.mean([run.accuracy for run in runs])) for runs in bars.values()]
    widths = [_width(runs) for runs in bars.values()]
    trace = {
        "type": "bar",
        "x": list(bars),
        "y": values,
        "text": [f"{value:.1f}" for value in values],
        "textposition": "inside",
        "insidetextanchor": "start",
        "marker": {"color": COLOURS[0]},
        "error_y": {"type": "data", "array": widths, "width": 6, "color": COLOURS[1]},
    }
    least = min(value - (width or 0.0) for value, width in zip(values, widths))
    bottom = max(0.0, 5 * float(np.floor(least / 5)) - 5)
    plot = plot_of([trace], xaxis={"type": "category"}, yaxis_title="accuracy in %")
    plot.update_yaxes(range=[bottom, 100])
    caption = f"{task.title}. Bars begin at {bottom:.0f} %; whiskers are 95 % intervals over clips."
    if any(len(runs) > 1 for runs in bars.values()):
        caption += " A bar of several training seeds is their mean, and its whiskers are one sd of them."
    return Figure(title=title, plot=plot, caption=caption, wide=len(bars) > 6)


def _width(runs: Sequence[ReportRun]) -> float | None:
    """The half width of a bar's whiskers in points."""
    if len(runs) > 1:
        return 100 * float(np.std([run.accuracy for run in runs], ddof=1))
    width = runs[0].number("ci95_clips")
    return None if width is None else 100 * width
