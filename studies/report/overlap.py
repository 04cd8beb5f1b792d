"""Accuracy on classes that the encoders may have met in their own training, beside that on the other classes."""

from __future__ import annotations

from typing import Any

from .data import ReportRun, StudyData
from .parts import Section, Table, percent


def overlap_section(data: StudyData) -> Section | None:
    """The accuracies of both kinds of class of each run; None where no run has classes of both kinds."""
    tables = []
    for task in data.tasks:
        runs = [(run, found) for run in task.runs if (found := _of(run)) is not None]
        if runs:
            tables.append(_table(task.title, runs))
    if not tables:
        return None
    text = (
        "Classes that the encoders' training sets had, by their names or by the encoders' own confidence, are not new "
        "to the features; the accuracy on the other classes says more about new ones. The two kinds are other classes, "
        "so their difference is also one of difficulty. `fsmm cache overlap` lists the classes."
    )
    return Section(name="pretraining", title="Classes known from pre-training", text=text, tables=tables)


def _of(run: ReportRun) -> dict[str, Any] | None:
    """What a run noted about its classes, where it has some of both kinds."""
    found = run.metrics.get("pretraining")
    if not isinstance(found, dict) or not (found.get("classes_overlapping") and found.get("classes_unseen")):
        return None
    return found


def _table(title: str, runs: list[tuple[ReportRun, dict[str, Any]]]) -> Table:
    columns = (
        "method",
        "modalities",
        "trained on",
        "known classes",
        "accuracy in %",
        "others",
        "accuracy in %",
    )
    rows = [
        (
            run.method,
            "+".join(run.modalities),
            ", ".join(found["training_sets"]),
            str(found["classes_overlapping"]),
            percent(found["accuracy_overlapping"]),
            str(found["classes_unseen"]),
            percent(found["accuracy_unseen"]),
        )
        for run, found in runs
    ]
    names = sorted({name for _, found in runs for name in found["overlapping"]})
    return Table(title=title, columns=columns, rows=rows, caption=f"Known: {', '.join(names)}.")
