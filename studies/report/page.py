"""The page of a report: one HTML file that holds everything, made by the templates beside this file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from ..._version import __version__
from .data import StudyData
from .parts import Section, percent
from .tables import LEGEND, Row, mark_text

# The columns of the main table: the row's key, the heading, and whether it is sorted as a number.
COLUMNS = (
    ("method", "method", False),
    ("modalities", "modalities", False),
    ("shots", "shots", True),
    ("withheld", "withheld", False),
    ("effective_classes", "effective classes", True),
    ("accuracy", "accuracy in %", True),
    ("ci95_clips", "± clips", True),
    ("mark", "marks", False),
    ("above_free", "above best free", True),
    ("settings", "settings", False),
    ("train_seed", "training seed", True),
    ("ci95_classes", "± classes", True),
    ("ci95_draws", "± draws", True),
    ("seconds", "time in s", True),
    ("peak_memory_mb", "memory in MB", True),
    ("parameters", "parameters", True),
    ("episodes", "episodes", True),
    ("family", "family", False),
    ("ways", "ways", True),
    ("run", "run", False),
)
GROUPS = (
    ("task", "task"),
    ("block", "block of the study"),
    ("family", "method family"),
    ("modalities", "modalities"),
    ("shots", "shots"),
)
FILTERS = (
    ("family", "family"),
    ("modalities", "modalities"),
    ("shots", "shots"),
    ("task", "task"),
    ("block", "block"),
)
_PERCENT = ("accuracy", "ci95_clips", "ci95_classes", "ci95_draws")
_ALWAYS = ("method", "modalities", "shots", "accuracy", "ci95_clips", "mark", "seconds", "run")


def render(data: StudyData, rows: Sequence[Row], sections: Sequence[Section], notes: Sequence[str]) -> str:
    """The page as a text; the tables beside it are named by their files."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    package = __name__.rpartition(".")[0]
    environment = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    titles = {task.number: task.title for task in data.tasks}
    blocks = {str(b["name"]): str(b.get("title") or b["name"]) for b in data.about.get("blocks") or ()}
    rows = [{**row, "block": blocks.get(row["block"], row["block"])} for row in rows]
    figures = any(section.figures for section in sections)
    return environment.get_template("page.html.j2").render(
        title=data.title,
        made=datetime.now(timezone.utc).isoformat(timespec="minutes"),
        version=__version__,
        counts=_counts(data),
        columns=[column for column in COLUMNS if column[0] in _shown(rows)],
        rows=[_shown_row(row, titles) for row in rows],
        description=str(data.about.get("description") or ""),
        groups=[group for group in GROUPS if group[0] != "block" or blocks],
        filters=[(key, name, _choices(rows, key, titles)) for key, name in FILTERS],
        legend=LEGEND,
        notes=notes,
        sections=_numbered(sections),
        library=get_plotlyjs() if figures else "",
        pictures=_script_json(
            json.dumps({k: v for section in sections for k, v in section.pictures.items()})
        ),
    )


def _counts(data: StudyData) -> str:
    """How much the report holds, in a sentence."""
    runs, tasks = len(data.runs), len(data.tasks)
    failed = f"; {len(data.failed)} failed or cannot be read" if data.failed else ""
    waiting = f"; {len(data.waiting)} are still to be made" if data.waiting else ""
    return f"{runs} run{'s' * (runs != 1)} on {tasks} task{'s' * (tasks != 1)}{failed}{waiting}."


def _shown(rows: Sequence[Row]) -> set[str]:
    """The columns in which something is told: those that are always shown, and those in which rows differ.

    A transductive result always states of how many classes the queries of an episode are.
    """
    apart = {key for key, *_ in COLUMNS if key != "mark" and len({str(row[key]) for row in rows}) > 1}
    counted = {"effective_classes"} if any(row["effective_classes"] is not None for row in rows) else set()
    return {*_ALWAYS, *apart, *counted}


def _shown_row(row: Row, titles: Mapping[int, str]) -> dict[str, Any]:
    """What the main table shows of a row: the text and the sort key of each cell, and what filters look at."""
    cells = {key: (_text(row, key), _sort_key(row, key)) for key, *_ in COLUMNS}
    looked_at = {
        key: titles[row["task"]] if key == "task" else str(row[key]) for key, _ in (*GROUPS, *FILTERS)
    }
    kind = "free" if row["free"] else "transductive" if row["transductive"] else "inductive"
    return {"cells": cells, "of": looked_at, "kind": kind, "best": row["best"], "free": row["free"]}


def _text(row: Row, key: str) -> str:
    if key == "mark":
        return mark_text(row)
    value = row[key]
    if value is None:
        return "–" if key.startswith("ci95") else ""
    if key in _PERCENT:
        return f"{100 * value:.2f}"
    if key == "above_free":
        width = "" if row["above_free_ci95_clips"] is None else f" ± {percent(row['above_free_ci95_clips'])}"
        return f"{percent(value, signed=True)}{width}"
    if key == "seconds":
        return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
    if key == "effective_classes":
        return f"{value:.3g}"
    if isinstance(value, float):
        return f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and key == "episodes" else str(value)


def _sort_key(row: Row, key: str) -> str:
    """The text by which a cell is sorted: a number as it is, or a text."""
    if key == "mark":
        return mark_text(row)
    value = row[key]
    if key in ("shots", "ways"):
        return str(value).partition("-")[0]
    return "" if value is None else str(value)


def _choices(rows: Sequence[Row], key: str, titles: Mapping[int, str]) -> list[str]:
    """The values that a filter offers; none where all rows have the same."""
    if key == "task":
        found = [titles[number] for number in dict.fromkeys(row["task"] for row in rows)]
    else:
        values = {str(row[key]) for row in rows}
        found = sorted(values, key=lambda text: (len(text), text) if key == "shots" else (0, text))
    return found if len(found) > 1 else []


def _numbered(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """The sections as templates take them; every figure has a name within the page, and its JSON."""
    made = []
    for section in sections:
        figures = [
            {"name": f"{section.name}-{number}", "figure": figure, "json": _json(figure.plot)}
            for number, figure in enumerate(section.figures, 1)
        ]
        made.append({"section": section, "figures": figures})
    return made


def _json(plot: Any) -> str:
    """A figure's JSON."""
    return _script_json(plot.to_json())


def _script_json(text: str) -> str:
    """A JSON text in a form that no HTML parser takes for the end of the script that holds it."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
