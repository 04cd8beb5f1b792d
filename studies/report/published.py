"""What a paper states beside what a study found: separate columns, so that figures of other data are never mixed in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...machine.files import write_bytes
from .data import ReportRun, StudyData
from .parts import Section, Table, percent
from .tables import csv_text, latex_text, markdown_text

NAME = "published"
"""The name of the section, and of its tables' files."""
_DASH = "–"


def published_rows(data: StudyData) -> list[dict[str, Any]]:
    """A row for each variant and number of shots: the study's own figures by data set, then the published ones.

    The rows are empty where the study names no published figures. A dash is a figure that is not at hand: a run that
    has not been made, or one that the study file does not state.
    """
    published = data.about.get("published")
    if not published:
        return []
    stated = {(row["label"], row["k_shot"]): row["values"] for row in published["rows"]}
    own: dict[tuple[str, Any], dict[str, list[ReportRun]]] = {}
    for asked, run in data.asked:
        if "variant" in asked.varies:
            key = (str(asked.varies["variant"]), run.protocol.k_shot)
            own.setdefault(key, {}).setdefault(run.dataset, []).append(run)
    here = sorted({run.dataset for run in data.runs})
    there = list(dict.fromkeys(name for values in stated.values() for name in values))
    rows = []
    for label, shots in dict.fromkeys([*own, *stated]):
        row: dict[str, Any] = {"row": label, "shots": shots}
        runs = own.get((label, shots), {})
        row |= {f"{name}, this study": _own(runs.get(name, ())) for name in here}
        values = stated.get((label, shots), {})
        row |= {f"{name}, published": f"{values[name]:.1f}" if name in values else _DASH for name in there}
        rows.append(row)
    return rows


def published_section(data: StudyData) -> Section | None:
    """The published figures beside the study's own; None where the study names none."""
    rows = published_rows(data)
    if not rows:
        return None
    columns = list(rows[0])
    table = Table(
        title=str(data.about["published"]["source"]),
        columns=columns,
        rows=[[str(row[name]) for name in columns] for row in rows],
        caption="Per cent; ± is the 95 % interval over clips. A dash is a figure that is not at hand.",
    )
    text = "Published figures are of other videos, features and class splits: they say where a method stood in its "
    text += "paper, and no difference between a published column and one of this study means anything."
    return Section(name=NAME, title="Published figures", text=text, tables=[table])


def write_published(folder: Path, data: StudyData) -> list[Path]:
    """Write the table as CSV, LaTeX and Markdown, where the study names published figures; the files are returned."""
    rows = published_rows(data)
    if not rows:
        return []
    columns = list(rows[0])
    texts = {"csv": csv_text(rows), "tex": latex_text(rows, columns), "md": markdown_text(rows, columns)}
    for kind, text in texts.items():
        write_bytes(folder / f"{NAME}.{kind}", text.encode())
    return [folder / f"{NAME}.{kind}" for kind in texts]


def _own(runs: Sequence[ReportRun]) -> str:
    """The accuracy of a run with its interval over clips; the mean of several, with their number."""
    if not runs:
        return _DASH
    mean = percent(float(np.mean([run.accuracy for run in runs])))
    if len(runs) > 1:
        return f"{mean} (mean of {len(runs)} runs)"
    width = runs[0].number("ci95_clips")
    return mean if width is None else f"{mean} ± {percent(width)}"
