"""Labels from an export of Label Studio, as clips with classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..machine.files import parsed_json, refuse_special


def exported_labels(file: Path) -> dict[str, str]:
    """The class of each clip of an export (JSON or JSON-MIN), by the clip's path; tasks without a label are left out.

    The path is the task's ``data.path``, which `fsmm suggest` writes, else ``data.video``; of several annotations the
    last that was not cancelled counts. Raises UsageError where the file is no such export.
    """
    refuse_special(file, "export")
    try:
        tasks = parsed_json(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"The labels {str(file)!r} cannot be read ({error}).") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise UsageError(f"{str(file)!r} is no export of Label Studio, which is a list of tasks.")
    found = {}
    for number, task in enumerate(tasks):
        data = task.get("data", task)
        path = data.get("path") or data.get("video") if isinstance(data, dict) else None
        if not isinstance(path, str):
            raise UsageError(f"Task {number + 1} of {str(file)!r} names no clip in data.path or data.video.")
        if (label := _label(task)) is not None:
            found[path] = label
    return found


def _label(task: Mapping[str, Any]) -> str | None:
    if isinstance(task.get("label"), str):  # JSON-MIN
        return str(task["label"])
    label = None
    for annotation in task.get("annotations") or []:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            for part in annotation.get("result") or []:
                choices = part.get("value", {}).get("choices") if isinstance(part, dict) else None
                label = str(choices[0]) if choices else label
    return label
