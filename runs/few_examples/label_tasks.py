"""Clips to label as files: a CSV table with an empty column, or the tasks and predictions of Label Studio.

In both, a label that is filled in is read back by ``fsmm fit --support FILE``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import unknown
from ...machine.files import whole_or_absent, write_json
from ...machine.texts import without_formulas

KINDS = (".csv", ".json")
MODEL = "fsmm"
FROM, TO = "label", "video"
"""The names of the choices and of the video in Label Studio's labelling interface."""
INTERFACE = (
    f'<View><Video name="{TO}" value="$video"/><Choices name="{FROM}" toName="{TO}">'
    "{choices}</Choices></View>"
)


def check_kind(path: Path) -> None:
    """Raise UsageError where a file of this name cannot be written."""
    if path.suffix.lower() not in KINDS:
        raise unknown("kind of file", path.suffix or path.name, KINDS)


def write_tasks(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write suggested clips. rows: path, suggested and probability (None without a model), and the figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".json":
        write_json(path, [_task(row) for row in rows])
        return
    with whole_or_absent(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        columns = ["path", "label", *[key for key in rows[0] if key not in ("path", "probabilities")]]
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(map(without_formulas, rows))


def _task(row: Mapping[str, Any]) -> dict[str, Any]:
    """A task of Label Studio, with the model's prediction where there is one."""
    task: dict[str, Any] = {"data": {"video": row["path"], "path": row["path"]}}
    if row["suggested"] is not None:
        choice = {
            "from_name": FROM,
            "to_name": TO,
            "type": "choices",
            "value": {"choices": [row["suggested"]]},
        }
        task["predictions"] = [{"model_version": MODEL, "score": row["probability"], "result": [choice]}]
    return task


def interface(class_names: Sequence[str]) -> str:
    """The labelling interface of Label Studio for these classes.

    >>> interface(["run", "a & b"])[-70:]
    'deo"><Choice value="run"/><Choice value="a &amp; b"/></Choices></View>'
    """
    from xml.sax.saxutils import quoteattr

    return INTERFACE.replace("{choices}", "".join(f"<Choice value={quoteattr(n)}/>" for n in class_names))
