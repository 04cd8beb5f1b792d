"""Which classes need the order of a clip's steps, where runs have an order certificate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .data import ReportRun, StudyData
from .grids import MOST_FIGURES, left_out
from .parts import Section, Table, percent


def order_section(data: StudyData) -> Section | None:
    """A table for each run with a certificate, a class a row; None where no run has one."""
    runs = [run for run in data.runs if run.metrics.get("order_certificate")]
    if not runs:
        return None
    text = (
        "The same head on the same episodes, with steps in order, with each clip's steps shuffled, with queries played "
        "backwards, and with one step alone. A class needs order where the loss by shuffling is surely above zero."
    )
    return Section(
        name="order",
        title="Which classes need the order of steps",
        text=text,
        tables=[_table(run) for run in runs[:MOST_FIGURES]],
        notes=left_out(len(runs), MOST_FIGURES, "runs"),
    )


def _table(run: ReportRun) -> Table:
    rows = run.metrics["order_certificate"]["rows"]
    changes = [*rows[0]["loss"]]
    return Table(
        title=run.name,
        columns=("class", "in order, %", *(f"lost: {change}" for change in changes), "needs order"),
        rows=[
            (
                row["name"],
                percent(row["accuracy"]["in order"]),
                *(_lost(row, change) for change in changes),
                "yes" if row["needs_order"] else "no",
            )
            for row in rows
        ],
        caption="Losses in points, ± over the clips of a class, for all classes over classes.",
    )


def _lost(row: Mapping[str, Any], change: str) -> str:
    width = row["interval"][change]
    return percent(row["loss"][change], signed=True) + ("" if width is None else f" ± {percent(width)}")
