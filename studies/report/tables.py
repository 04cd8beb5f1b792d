"""The tables beside a page: one row a run and one row a task, as CSV, parquet, LaTeX (booktabs) and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...machine.files import whole_or_absent, write_bytes
from ...machine.texts import without_formulas
from .cost import seconds
from .data import ReportRun, StudyData
from .marks import Entry, Mark, entries
from .parts import percent

Row = dict[str, Any]

FORMATS = ("csv", "parquet", "tex", "md")
# What a printed table shows of a row, by column.
_PRINTED_RUNS = (
    *("task", "method", "modalities", "shots", "withheld", "effective_classes", "settings", "accuracy"),
    "mark",
)
_PRINTED_TASKS = (
    "task",
    "title",
    "runs",
    "best_inductive",
    "best_transductive",
    "best_free",
    "trained_not_above_free",
)
_HEADS = {
    "best_inductive": "best inductive",
    "best_transductive": "best transductive",
    "best_free": "best free",
}
_HEADS |= {
    "trained_not_above_free": "trained, not above free",
    "title": "episodes",
    "accuracy": "accuracy (%)",
    "effective_classes": "effective classes",
}
_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "≈": r"$\approx$",
    "★": r"$\star$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def run_rows(data: StudyData, marks: Mapping[str, Mark]) -> list[Row]:
    """A row of plain values for each run, task by task; fractions are in 0..1 and times in seconds."""
    return [_run_row(run, task.number, marks[run.name]) for task in data.tasks for run in task.runs]


def task_rows(data: StudyData, marks: Mapping[str, Mark]) -> list[Row]:
    """A row of plain values for each task: its best head of each kind, and the best that needs no training."""
    rows = []
    for task in data.tasks:
        best = {kind: _best(task.runs, transductive=kind) for kind in (False, True)}
        heads = (head for head in entries(task.runs) if head.first.free)
        free = max(heads, key=lambda head: head.accuracy, default=None)
        judged = [mark for run in task.runs if (mark := marks[run.name]).beats_free is not None]
        row: Row = {"task": task.number, "title": task.title, "runs": len(task.runs)}
        row |= {"dataset": task.runs[0].dataset, "split": task.runs[0].protocol.split}
        row |= {"ways": task.runs[0].ways, "shots": task.runs[0].shots, "seed": task.runs[0].protocol.seed}
        for name, head in (("inductive", best[False]), ("transductive", best[True]), ("free", free)):
            row |= _best_cells(name, head, marks)
        row["trained_judged"] = len(judged)
        row["trained_not_above_free"] = sum(not mark.beats_free for mark in judged)
        rows.append(row)
    return rows


def write_tables(folder: Path, runs: Sequence[Row], tasks: Sequence[Row]) -> tuple[list[Path], list[str]]:
    """Write both tables in every format; the files, and a sentence for each format that cannot be written here."""
    written, notes = [], []
    for name, rows, printed in (("runs", runs, _PRINTED_RUNS), ("tasks", tasks, _PRINTED_TASKS)):
        texts = {"csv": csv_text(rows), "tex": latex_text(rows, printed), "md": markdown_text(rows, printed)}
        for kind, text in texts.items():
            write_bytes(folder / f"{name}.{kind}", text.encode())
            written.append(folder / f"{name}.{kind}")
        if find_spec("pyarrow") is not None:
            _write_parquet(folder / f"{name}.parquet", rows)
            written.append(folder / f"{name}.parquet")
    if find_spec("pyarrow") is None:
        notes.append(
            "There are no parquet tables, since pyarrow is not installed; `pip install pyarrow` brings it."
        )
    return written, notes


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as CSV; a value that is not there is empty, and a text that a spreadsheet would compute is quoted."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    table.writeheader()
    table.writerows(map(without_formulas, rows))
    return text.getvalue()


def latex_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows as a LaTeX table of the package booktabs, with a rule between tasks."""
    shown = _filled(rows, columns)
    lines = [
        "% \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{'l' * len(shown)}}}",
        "\\toprule",
        " & ".join(_latex(_head(name)) for name in shown) + " \\\\",
        "\\midrule",
    ]
    for number, row in enumerate(rows):
        if number and "method" in shown and row["task"] != rows[number - 1]["task"]:
            lines.append("\\midrule")
        lines.append(" & ".join(_latex(_cell(row, name)) for name in shown) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", *_legend(shown, "% "), ""])


def markdown_text(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """The rows as a Markdown table."""
    shown = _filled(rows, columns)
    lines = ["| " + " | ".join(map(_head, shown)) + " |", "| " + " | ".join("---" for _ in shown) + " |"]
    lines += ["| " + " | ".join(_markdown(_cell(row, name)) for name in shown) + " |" for row in rows]
    return "\n".join([*lines, "", *_legend(shown, ""), ""])


def _markdown(text: str) -> str:
    """A text of a Markdown table's cell, in which no character begins a column or HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def mark_text(row: Row) -> str:
    """The marks of a row as a short text.

    >>> mark_text({"best": True, "not_worse": True, "free": True, "beats_free": None, "transductive": False})
    '★ free'
    """
    parts = ["★"] if row["best"] else ["≈"] if row["not_worse"] else []
    parts += ["free"] if row["free"] else []
    parts += ["transductive"] if row["transductive"] else []
    parts += ["not above free"] if row["beats_free"] is False else []
    return " ".join(parts)


LEGEND = (
    "★ is the most accurate of its kind (inductive or transductive) on a task; ≈ is not significantly worse than it. "
    "free needs no training; not above free is a trained head that does not beat the best free run on the same "
    "modalities. Both by the paired difference on the same episodes and its 95 % interval over clips, without "
    "correction for the number of comparisons."
)


def _legend(shown: Sequence[str], before: str) -> list[str]:
    texts = [LEGEND, "± is the 95 % interval over clips."] if "mark" in shown else []
    return [f"{before}{text}" for text in texts]


def _run_row(run: ReportRun, task: int, mark: Mark) -> Row:
    metrics = run.metrics
    return {
        "task": task,
        "run": run.name,
        "block": run.block,
        "dataset": run.dataset,
        "split": run.protocol.split,
        "label_set": run.protocol.label_set or "",
        "class_split": run.protocol.class_split,
        "method": run.method,
        "family": run.family,
        "modalities": "+".join(run.modalities),
        "streams": " ".join(str(name) for name in (metrics.get("streams") or {}).values()),
        "ways": run.ways,
        "shots": run.shots,
        "queries": run.protocol.n_query,
        "withheld": run.withheld,
        "settings": run.settings,
        "effective_classes": (metrics.get("effective_classes") or {}).get("mean"),
        "seed": run.protocol.seed,
        "train_seed": run.config.get("train_seed") if run.trained else None,
        "transductive": run.transductive,
        "trained": run.trained,
        "free": run.free,
        "measure": str(metrics.get("measure", "accuracy")),
        "accuracy": run.accuracy,
        "ci95_clips": run.number("ci95_clips"),
        "seeds": mark.seeds,
        "mean_over_seeds": mark.mean,
        "mean_ci95_clips_and_seeds": mark.mean_ci95,
        "ci95_classes": run.number("ci95_classes"),
        "ci95_draws": run.number("ci95"),
        "episodes": int(metrics.get("episodes") or 0),
        "best": mark.best,
        "not_worse": mark.not_worse,
        "best_free": mark.free,
        "above_free": mark.difference,
        "above_free_ci95_clips": mark.ci95,
        "beats_free": mark.beats_free,
        "train_seconds": run.number("train_seconds"),
        "eval_seconds": run.number("eval_seconds"),
        "seconds": seconds(run),
        "parameters": run.number("parameters"),
        "peak_memory_mb": run.number("peak_memory_mb"),
        "device": str(metrics.get("device", "")),
        "clips": metrics.get("clips"),
        "classes": metrics.get("classes"),
        "fingerprint": str(metrics.get("fingerprint", "")),
        "folder": str(run.folder),
        "command": run.command,
    }


def _best(runs: Sequence[ReportRun], *, transductive: bool) -> Entry | None:
    """The head of a kind that is best as the mean over its seeds; None where the task has none of that kind."""
    kind = [head for head in entries(runs) if head.first.transductive == transductive]
    return max(kind, key=lambda head: head.accuracy, default=None)


def _best_cells(name: str, head: Entry | None, marks: Mapping[str, Mark]) -> Row:
    """The cells of the best head of a kind, with the mean over its seeds and an interval that counts them."""
    run = head and head.first
    return {
        f"best_{name}": head and head.name,
        f"best_{name}_head": run and f"{run.method} on {'+'.join(run.modalities)}",
        f"best_{name}_accuracy": head and head.accuracy,
        f"best_{name}_ci95_clips": run and marks[run.name].mean_ci95,
    }


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    with whole_or_absent(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), temporary)


def _filled(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """The columns in which some row has a text."""
    return [name for name in columns if any(_cell(row, name) for row in rows)]


def _head(name: str) -> str:
    return _HEADS.get(name, name)


def _cell(row: Row, name: str) -> str:
    """The text of a printed cell."""
    if name == "mark":
        return mark_text(row)
    if name == "accuracy":
        return _with_interval(row["accuracy"], row["ci95_clips"])
    if name == "effective_classes":
        return "" if row[name] is None else f"{row[name]:.3g}"
    if name.startswith("best_"):
        found = row[f"{name}_head"]
        return (
            ""
            if not found
            else f"{found}: {_with_interval(row[f'{name}_accuracy'], row[f'{name}_ci95_clips'])}"
        )
    if name == "trained_not_above_free":
        return f"{row[name]} of {row['trained_judged']}" if row["trained_judged"] else ""
    return str(row[name])


def _with_interval(accuracy: float, width: float | None) -> str:
    return percent(accuracy) if width is None else f"{percent(accuracy)} ± {percent(width)}"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)
