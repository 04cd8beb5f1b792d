"""The study files that are shipped with the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ...errors import UsageError, unknown
from .spec import StudyDocument, read_study_file

_FOLDER = "presets"


def presets() -> dict[str, Path]:
    """The files of the presets, by name."""
    folder = Path(str(files(__package__))) / _FOLDER
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_study(text: str) -> StudyDocument:
    """The study of a file, or of a preset's name. Raises UsageError where there is neither, and as the reader does."""
    path, known = Path(text).expanduser(), presets()
    if text in known and not path.is_file():
        return read_study_file(known[text])
    if path.is_file():
        return read_study_file(path)
    if path.suffix in (".yaml", ".yml") or path.exists():
        raise UsageError(f"There is no study file {text!r}; `fsmm sweep --list` shows the presets.")
    raise unknown("study file or preset", text, known)
