"""What a paper states beside what a study found: separate columns, so that figures of other data are never mixed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...machine.files import write_bytes
from ..grid.store import Row
from .data import ReportRun, StudyData
from .parts import Section, Table, percent
from .tables import csv_text, latex_text, markdown_text

NAME = "published"
"""The name of the section, and of its tables' files."""
_DASH = "–"


@dataclass(frozen=True, kw_only=True)
class Stated:
    """The figures that one study file states, beside the runs of the blocks that it describes."""

    published: Mapping[str, Any]
    """The source, and the rows."""
    asked: Sequence[tuple[Row, ReportRun]]
    """The rows of its blocks, with their runs."""
    name: str
    """The name of its tables' files."""


def stated(data: StudyData) -> list[Stated]:
    """The published figures of the study's own file, and those of each study that it includes; empty without any."""
    included: Sequence[Mapping[str, Any]] = data.about.get("studies") or ()
    theirs = {block for each in included for block in each["blocks"]}
    found = []
    if own := data.about.get("published"):
        asked = [pair for pair in data.asked if pair[0].block not in theirs]
        found.append(Stated(published=own, asked=asked, name=NAME))
    for each in included:
        if each.get("published"):
            asked = [pair for pair in data.asked if pair[0].block in each["blocks"]]
            name = f"{NAME}-{(each['name'] or each['file'].rpartition('.')[0]).replace('/', '-')}"
            found.append(Stated(published=each["published"], asked=asked, name=name))
    return found


def published_rows(said: Stated) -> list[dict[str, Any]]:
    """A row for each variant and number of shots: the study's own figures by data set, then the published ones.

    A dash is a figure that is not at hand: a run that has not been made, or one that the study file does not state.
    """
    values_of = {(row["label"], row["k_shot"]): row["values"] for row in said.published["rows"]}
    own: dict[tuple[str, Any], dict[str, list[ReportRun]]] = {}
    for asked, run in said.asked:
        if "variant" in asked.varies:
            key = (str(asked.varies["variant"]), run.protocol.k_shot)
            own.setdefault(key, {}).setdefault(run.dataset, []).append(run)
    here = sorted({run.dataset for _, run in said.asked})
    there = list(dict.fromkeys(name for values in values_of.values() for name in values))
    rows = []
    for label, shots in dict.fromkeys([*own, *values_of]):
        row: dict[str, Any] = {"row": label, "shots": shots}
        runs = own.get((label, shots), {})
        row |= {f"{name}, this study": _own(runs.get(name, ())) for name in here}
        values = values_of.get((label, shots), {})
        row |= {f"{name}, published": f"{values[name]:.1f}" if name in values else _DASH for name in there}
        rows.append(row)
    return rows


def published_section(data: StudyData) -> Section | None:
    """The published figures beside the study's own; None where the study names none."""
    tables = [_table(said, rows) for said in stated(data) if (rows := published_rows(said))]
    if not tables:
        return None
    text = "Published figures are of other videos, features and class splits: they say where a method stood in its "
    text += "paper, and no difference between a published column and one of this study means anything."
    return Section(name=NAME, title="Published figures", text=text, tables=tables)


def _table(said: Stated, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(rows[0])
    return Table(
        title=str(said.published["source"]),
        columns=columns,
        rows=[[str(row[name]) for name in columns] for row in rows],
        caption="Per cent; ± is the 95 % interval over clips. A dash is a figure that is not at hand.",
    )


def write_published(folder: Path, data: StudyData) -> list[Path]:
    """Write each table as CSV, LaTeX and Markdown, where the study names published figures; the files are returned."""
    files = []
    for said in stated(data):
        if rows := published_rows(said):
            columns = list(rows[0])
            texts = {
                "csv": csv_text(rows),
                "tex": latex_text(rows, columns),
                "md": markdown_text(rows, columns),
            }
            for kind, text in texts.items():
                files.append(folder / f"{said.name}.{kind}")
                write_bytes(files[-1], text.encode())
    return files


def _own(runs: Sequence[ReportRun]) -> str:
    """The accuracy of a run with its interval over clips; the mean of several, with their number."""
    if not runs:
        return _DASH
    mean = percent(float(np.mean([run.accuracy for run in runs])))
    if len(runs) > 1:
        return f"{mean} (mean of {len(runs)} runs)"
    width = runs[0].number("ci95_clips")
    return mean if width is None else f"{mean} ± {percent(width)}"
