"""A study on disk: a folder with what was asked for, its runs, and the runs that failed.

    study.json        what the study is: format, name, title, description, the blocks as written, published figures,
                      what the files of included studies say of their blocks, the command, versions, the cache, and
                      the times at which the last sweep began and ended
    rows.json         one row a run of the study, in the order of the study file: key, block, label, what varies in
                      the block, the run's whole configuration, and the name of its trained head
    runs/KEY/         an ordinary run folder (see runs/store.py); KEY is made of the run's content (see identity.py)
    heads/NAME/       a trained head that runs share, with trained.json, the record of its training
    failed.jsonl      one line a failure: key, kind, reason, time; a line counts while the run is not stored
    costs.json        the measured cost of each kind of run, by which the next sweep estimates its time
    locks/            empty files that workers lock; the system unlocks them when a process ends, however it ends

A study that is swept again with another file keeps the runs that the file no longer asks for, and ``rows.json`` names
those that it asks for. Everything but ``failed.jsonl`` is written whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ...errors import FsmmError
from ...machine.checked import with_check, without_check
from ...machine.digests import changed_files
from ...machine.files import parsed_json, refuse_special, write_json
from ...machine.forms import fault_of
from ...runs.layout import FILES
from ...runs.store import load_run, load_texts, settle
from .form import StoredRow, StoredStudy

STUDY, ROWS, FAILED = "study.json", "rows.json", "failed.jsonl"
RUNS, HEADS, LOCKS = "runs", "heads", "locks"
FORMAT = 1
"""The format of a study's folder; a reader refuses one that it does not know."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run of a study, whether it is done or not."""

    key: str
    """The name of the run's folder, which is made of the run's content."""
    block: str
    """The block of the study file that asks for the run."""
    label: str
    """The text by which a person tells the run from the others of its block."""
    varies: Mapping[str, Any]
    """The values that differ within the block, such as {"method": "protonet", "k_shot": 5}."""
    config: Mapping[str, Any]
    """The run's options as ``fsmm episode-eval --config`` takes them."""
    head: str | None = None
    """The name of the trained head in the folder of heads, or None where the method does not learn."""
    trained_as: Mapping[str, Any] = field(default_factory=dict)
    """The options under which the head was trained where they are not the run's own."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A run that failed."""

    key: str
    """The key of the run."""
    kind: str
    """The name of the error's class."""
    reason: str
    """The sentence of the error."""
    at: str = ""
    """The time of the failure, in UTC and ISO form."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's folder as it was read."""

    folder: Path
    """The folder of the study."""
    about: Mapping[str, Any]
    """The content of study.json."""
    rows: Sequence[Row]
    """The runs that the study asks for."""
    failures: Mapping[str, Failure]
    """The last failure of each run that is not stored, by key."""

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.about["name"])

    @cached_property
    def done(self) -> list[Row]:
        """The rows whose runs are stored undamaged."""
        return [row for row in self.rows if is_stored(self.run_folder(row))]

    def run_folder(self, row: Row) -> Path:
        """The folder of a row's run, which is there once the run is done."""
        return self.folder / RUNS / row.key

    def metrics(self, row: Row) -> dict[str, Any]:
        """The figures of a row's run. Raises FsmmError where it is not stored, or damaged."""
        return load_texts(self.run_folder(row))[1]

    def load(self, row: Row) -> tuple[dict[str, Any], dict[str, Any], dict[str, np.ndarray]]:
        """The configuration, figures and arrays of a row's run. Raises FsmmError where it is not stored, or damaged."""
        return load_run(self.run_folder(row))

    def command(self, row: Row) -> str:
        """The command that does a row's run again by itself."""
        return f"fsmm episode-eval --config {self.run_folder(row) / FILES[0]}"


def is_stored(folder: Path) -> bool:
    """Whether a folder holds a whole run whose files are as they were written."""
    settle(folder)
    if not all((folder / name).is_file() for name in FILES):
        return False
    try:
        return not changed_files(folder, FILES)
    except (FsmmError, OSError):
        return False


def read_study(folder: Path) -> Study:
    """The study in a folder. Raises FsmmError where there is none, or it has a format that this release cannot read."""
    about = _json(folder / STUDY)
    if not isinstance(about, dict) or not isinstance(about.get("name"), str):
        raise _no_study(folder, f"{STUDY} names no study")
    if about.get("format") != FORMAT:
        raise FsmmError(
            f"The study {str(folder)!r} has format {about.get('format')!r}, and this release reads format {FORMAT}; "
            "sweep it again into another folder."
        )
    about = _formed(folder, STUDY, _unchanged(folder, STUDY, about), StoredStudy)
    entries = _json(folder / ROWS)
    if not isinstance(entries, list):
        raise _misformed(folder, ROWS, "it holds no list of runs")
    rows = [Row(**_formed(folder, ROWS, _unchanged(folder, ROWS, row), StoredRow)) for row in entries]
    keys = {row.key for row in rows}
    failed = {key: found for key, found in read_failures(folder).items() if key in keys}
    lost = {key: found for key, found in failed.items() if not is_stored(folder / RUNS / key)}
    return Study(folder=folder, about=about, rows=rows, failures=lost)


def write_study(folder: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write what a study is and which runs it asks for. Raises OSError where the folder cannot be written."""
    for name in (RUNS, HEADS, LOCKS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_json(folder / ROWS, [with_check(asdict(row)) for row in rows])
    write_json(folder / STUDY, with_check({**about, "format": FORMAT}))


def read_failures(folder: Path) -> dict[str, Failure]:
    """The last failure of each run, by key; a line that a killed writer has torn is left out."""
    path, found = folder / FAILED, {}
    refuse_special(path, "list of failures", error=FsmmError)
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise FsmmError(
            f"The list of failures {str(path)!r} cannot be read ({error.strerror or error}); remove it."
        ) from None
    for line in lines:
        try:
            values = parsed_json(line)
            failure = Failure(**values)
        except (ValueError, TypeError):
            continue
        if all(isinstance(value, str) for value in values.values()):
            found[failure.key] = failure
    return found


def add_failure(folder: Path, failure: Failure) -> None:
    """Add a line to the failures; sweeps that write at once do not mix their lines."""
    line = f"{json.dumps(asdict(failure), ensure_ascii=False)}\n".encode()
    handle = os.open(folder / FAILED, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def _json(path: Path) -> Any:
    refuse_special(path, "file of a study", error=FsmmError)
    try:
        return parsed_json(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise _no_study(path.parent, f"{path.name}: {why}") from None


def _formed(folder: Path, name: str, table: dict[str, Any], form: type[BaseModel]) -> dict[str, Any]:
    """A table in a study's file. Raises FsmmError, which says what is wrong, where it has not the form of ours."""
    if fault := fault_of(table, form):
        raise _misformed(folder, name, fault)
    return table


def _misformed(folder: Path, name: str, why: str) -> FsmmError:
    return FsmmError(
        f"{name} of the study {str(folder)!r} is not as fsmm writes it ({why}); sweep the study again, which keeps its "
        "runs."
    )


def _unchanged(folder: Path, name: str, table: Any) -> dict[str, Any]:
    """The values of a table in a study's file. Raises FsmmError where they are not the ones that were written."""
    if not isinstance(table, Mapping):
        raise _misformed(folder, name, "an entry is no table of keys and values")
    try:
        return without_check(table)
    except ValueError:
        raise FsmmError(
            f"{name} of the study {str(folder)!r} is not as it was written; sweep the study again, which keeps its "
            "runs."
        ) from None


def _no_study(folder: Path, why: str) -> FsmmError:
    return FsmmError(f"{str(folder)!r} is not the folder of a study ({why}); `fsmm sweep --out` makes one.")
