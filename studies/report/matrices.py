"""Matrices from what a head learned from to what it is tested on: modalities, and data sets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .data import ReportRun, StudyData
from .grids import MOST_FIGURES, heat_map, left_out
from .marks import Mark
from .parts import Figure, Section, Table, differing, percent

Cell = tuple[str, str]
_DASH = "–"
Group = Sequence[tuple[Cell, ReportRun]]
"""The runs of one matrix, each with its cell."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of matrix."""

    cell: Callable[[ReportRun], Cell | None]
    """The row and the column of a run; None where the run does not belong into such a matrix."""
    alike: Callable[[ReportRun], list[Any]]
    """What two runs of one matrix have in common beside method, settings and normalisation."""
    rows: str
    """The title of the rows."""
    columns: str
    """The title of the columns."""


def matrix_section(data: StudyData, marks: Mapping[str, Mark]) -> Section | None:
    """Accuracy by what a head learned from and what it is tested on; None where these never differ.

    marks: the mark of each run, by its name.
    """
    groups = [(kind, group) for kind in KINDS for group in _groups(data.runs, kind)]
    figures = [_figure(group, kind) for kind, group in groups]
    if not figures:
        return None
    text = "A cell is the mean over the seeds of training. The diagonal is what is learned and tested alike."
    return Section(
        name="matrix",
        title="From training to test",
        text=text,
        figures=figures[:MOST_FIGURES],
        tables=[table for kind in KINDS for table in _tables(groups, kind, marks)],
        notes=left_out(len(figures), MOST_FIGURES, "matrices"),
    )


def _groups(runs: Sequence[ReportRun], kind: Kind) -> list[Group]:
    """The runs of each matrix of one kind, which is of one head on one task; none that is a diagonal alone."""
    groups: dict[str, list[tuple[Cell, ReportRun]]] = {}
    for run in runs:
        cell = None if any(missing.rate > 0 for missing in run.protocol.missing) else kind.cell(run)
        if cell is not None:
            told = [run.method, run.config.get("settings"), run.config.get("normalise"), *kind.alike(run)]
            groups.setdefault(json.dumps(told, sort_keys=True, default=str), []).append((cell, run))
    return [group for group in groups.values() if any(row != column for (row, column), _ in group)]


def _tables(groups: Sequence[tuple[Kind, Group]], kind: Kind, marks: Mapping[str, Mark]) -> list[Table]:
    """A table for each task of one kind of matrix, in which a head is a row and a cell of its matrix a column."""
    tasks: dict[str, list[Group]] = {}
    for other, group in groups:
        if other is kind:
            told = json.dumps(kind.alike(group[0][1]), sort_keys=True, default=str)
            tasks.setdefault(told, []).append(group)
    return [_table(heads, kind, marks) for heads in tasks.values()]


def _table(heads: Sequence[Group], kind: Kind, marks: Mapping[str, Mark]) -> Table:
    """The matrices of several heads on one task side by side, heads without training first."""
    heads = sorted(heads, key=lambda group: not group[0][1].free)
    cells = sorted({cell for group in heads for cell, _ in group}, key=lambda cell: [*map(_by_size, cell)])
    rows = []
    for name, group in zip(_names([group[0][1] for group in heads]), heads):
        found = {cell: marks[run.name] for cell, run in reversed(group)}
        rows.append((name, *(_accuracy(found[cell]) if cell in found else _DASH for cell in cells)))
    return Table(
        title=f"{kind.rows} → {kind.columns}; {_where(heads[0][0][1], kind)}",
        columns=("head", *(f"{row} → {column}" for row, column in cells)),
        rows=rows,
        caption="Accuracy in %, and its 95 % interval over clips (with several training seeds, over these, too).",
    )


def _names(runs: Sequence[ReportRun]) -> list[str]:
    """What tells the heads of runs apart: always the method, and settings and normalisation where these differ."""
    told = [
        {
            "settings": " ".join(
                f"{key}={value}" for key, value in (run.config.get("settings") or {}).items()
            ),
            "normalise": str(run.config.get("normalise")),
        }
        for run in runs
    ]
    more = differing(told) if any(each != told[0] for each in told) else [""] * len(runs)
    return [f"{run.method}, {text}" if text else run.method for run, text in zip(runs, more)]


def _accuracy(mark: Mark) -> str:
    """The mean accuracy of a head over its training seeds, with the half width of its interval where it has one."""
    mean = percent(mark.mean)
    return mean if mark.mean_ci95 is None else f"{mean} ± {percent(mark.mean_ci95)}"


def _where(run: ReportRun, kind: Kind) -> str:
    """The data and the task of a matrix."""
    where = run.dataset if kind.rows != DATA_SETS.rows else "+".join(run.modalities)
    return f"{where}: {run.protocol.describe().split('; support ')[0]}"


def _figure(group: Group, kind: Kind) -> Figure:
    """The matrix of one head on one task."""
    cells: dict[Cell, dict[object, float]] = {}
    for cell, run in group:  # Two blocks of a study may ask for one run.
        cells.setdefault(cell, {}).setdefault(run.config.get("train_seed"), run.accuracy)
    rows, columns = (sorted({cell[side] for cell in cells}, key=_by_size) for side in (0, 1))
    values = [
        [
            float(np.mean([*cells[row, column].values()])) if (row, column) in cells else None
            for column in columns
        ]
        for row in rows
    ]
    run = group[0][1]
    title = f"{run.method}, {_where(run, kind)}"
    plot = heat_map(values, columns, rows, x=kind.columns, y=kind.rows, height=120 + 60 * len(rows))
    return Figure(title=title, plot=plot, caption=f"{kind.rows} to {kind.columns}; accuracy in %.", wide=True)


def _task(run: ReportRun) -> list[Any]:
    """The data and the protocol of a run but for the modalities of supports and queries."""
    values = {**run.protocol.to_dict(), "support_modalities": None, "query_modalities": None}
    return [run.dataset, run.config.get("train_dataset"), run.metrics.get("fingerprint"), values]


def _sides(run: ReportRun) -> Cell:
    """The modalities of supports and of queries."""
    sides = (run.protocol.support_modalities, run.protocol.query_modalities)
    support, query = ("+".join(sorted(side or run.modalities)) for side in sides)
    return support, query


def _support_to_query(run: ReportRun) -> Cell | None:
    return None if run.config.get("train_modalities") else _sides(run)


def _training_to_test(run: ReportRun) -> Cell | None:
    support, query = _sides(run)
    trained = run.config.get("train_modalities") or run.modalities
    return ("+".join(sorted(trained)), query) if run.trained and support == query else None


def _data_set_to_data_set(run: ReportRun) -> Cell:
    return str(run.config.get("train_dataset") or run.dataset), run.dataset


def _any_data(run: ReportRun) -> list[Any]:
    """The protocol of a run, whatever its data set, with its modalities and those of its training."""
    values = {**run.protocol.to_dict(), "label_set": None}
    return [values, run.modalities, run.config.get("train_modalities")]


def _by_size(name: str) -> tuple[int, str]:
    return name.count("+"), name


DATA_SETS = Kind(cell=_data_set_to_data_set, alike=_any_data, rows="trained on", columns="tested on")
KINDS = (
    Kind(cell=_support_to_query, alike=_task, rows="supports carry", columns="queries carry"),
    Kind(cell=_training_to_test, alike=_task, rows="training clips carry", columns="test clips carry"),
    DATA_SETS,
)
