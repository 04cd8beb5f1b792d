"""A study's folder whose files were edited by hand, or are of another release: it works, or there is one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests_support import sentence_of
from typer.testing import CliRunner

from fsmm.cli import app
from fsmm.errors import FsmmError, UsageError
from fsmm.machine.json_text import json_text
from fsmm.studies.grid.cost import Cost
from fsmm.studies.grid.store import (
    FAILED,
    FORMAT,
    ROWS,
    STUDY,
    Failure,
    Row,
    add_failure,
    read_study,
    write_study,
)
from fsmm.studies.grid.sweep import plan_study

ABOUT: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "description": "A study.",
    "command": "fsmm sweep",
    "cache": "/cache",
    "blocks": [{"name": "one", "title": "One", "chart": "bars"}],
    "versions": {"fsmm": "1.0", "numeric": 3},
    "published": {"source": "Nobody", "rows": [{"label": "a", "k_shot": 1, "values": {"toy": 50.0}}]},
}
ROW = Row(key="protonet-1", block="one", label="a", varies={"k_shot": 1}, config={"method": "protonet"})
WRONG: list[Any] = [3.5, -1, [1], {"a": 1}, True, "half \ud800", [[]], [{"title": "no name"}]]
# The keys that may have a table with anything in it.
TABLES = ("versions", "values", "varies", "config", "trained_as")
PLACES: list[tuple[str, tuple[str | int, ...]]] = [
    *((STUDY, (key,)) for key in ABOUT),
    (STUDY, ("blocks", 0, "name")),
    (STUDY, ("published", "rows", 0, "values")),
    *((ROWS, (0, key)) for key in ("key", "block", "label", "varies", "config", "head", "trained_as")),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_study(tmp_path / "small", ABOUT, [ROW])
    return tmp_path / "small"


def edited(path: Path, change: Callable[[Any], None]) -> None:
    """Change a file of a study as a person would who removes the digests, too."""
    table = json.loads(path.read_text())
    for entry in table if isinstance(table, list) else [table]:
        entry.pop("check")
    change(table)
    path.write_text(json.dumps(table))


@pytest.mark.parametrize(("name", "path"), PLACES)
def test_every_value_of_another_kind_is_refused(folder: Path, name: str, path: tuple[str | int, ...]) -> None:
    whole = (folder / name).read_text()
    for value in WRONG:
        if value == {"a": 1} and path[-1] in TABLES:
            continue
        (folder / name).write_text(whole)
        edited(folder / name, partial(put, path=path, value=value))
        assert name in sentence_of(read_study, folder), value


def put(table: Any, *, path: tuple[str | int, ...], value: Any) -> None:
    """Put a value at a path of a table."""
    *steps, last = path
    for step in steps:
        table = table[step]
    table[last] = value


@pytest.mark.parametrize("key", ["", "..", "../../etc", "/etc/passwd", "a/b", "a\nb", ".hidden"])
def test_no_key_of_a_run_leads_out_of_the_study(folder: Path, key: str) -> None:
    edited(folder / ROWS, lambda rows: rows[0].update(key=key))
    assert f"{ROWS} of the study" in sentence_of(read_study, folder)


@pytest.mark.parametrize("name", [STUDY, ROWS])
@pytest.mark.parametrize(
    "content",
    [b"", b"[", b"3", b"null", b'{"a": 1}', b"[3]", b'"text"', b"\xff\xfe", b"[" * 100_000, b"9" * 5_000],
)
def test_a_file_that_is_none_of_ours_is_one_sentence(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    assert name in sentence_of(read_study, folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the platform has no named pipes")
@pytest.mark.parametrize("name", [STUDY, ROWS, FAILED])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert "is a pipe or a device" in sentence_of(read_study, folder)


def test_lines_of_failures_that_are_none_are_left_out(folder: Path) -> None:
    add_failure(folder, Failure(key=ROW.key, kind="UsageError", reason="There is no such stream."))
    others = [
        "[1]",
        '{"key": []}',
        '{"key": "protonet-1", "kind": 3, "reason": 4}',
        '{"key": {}, "kind": "", "reason": ""}',
    ]
    with open(folder / FAILED, "ab") as file:
        file.write(b"\xff\n" + "\n".join(others).encode())
    assert read_study(folder).failures[ROW.key].reason == "There is no such stream."


def test_a_study_of_an_older_release_is_read_and_one_of_a_newer_is_left_alone(folder: Path) -> None:
    edited(folder / STUDY, lambda about: [about.pop(key) for key in ABOUT if key != "name"])
    edited(folder / ROWS, lambda rows: [rows[0].pop(key) for key in ("head", "trained_as")])
    assert read_study(folder).rows == [ROW]
    edited_text = (folder / STUDY).read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}')
    (folder / STUDY).write_text(edited_text)
    assert f"this release reads format {FORMAT}" in sentence_of(read_study, folder)
    study = folder.parent / "small.yaml"
    study.write_text("blocks: [{name: one, fixed: {method: protonet}}]")
    with pytest.raises(UsageError, match=rf"has format {FORMAT + 1}, and this release writes {FORMAT}"):
        plan_study(study, folder, out=folder, jobs=1, overrides={}, device="cpu", command="")
    assert (folder / STUDY).read_text() == edited_text


@pytest.mark.parametrize(
    "values", [{"size": 0}, {"evaluate_every": 0}, {"episode": "a"}, {"step": -1.0}, {"start": float("inf")}]
)
def test_a_cost_that_cannot_be_measured_is_measured_anew(values: dict[str, Any]) -> None:
    assert Cost().is_possible
    assert not Cost(**values).is_possible


def test_the_command_line_says_it_in_one_line(folder: Path) -> None:
    (folder / ROWS).write_text(json_text({"rows": []}))
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert isinstance(done.exception, FsmmError)
    assert str(done.exception).startswith(f"{ROWS} of the study {str(folder)!r} is not as fsmm writes it")
