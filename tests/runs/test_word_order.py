"""Class words by position, from a file of the names under which vectors were published, as public loaders have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.runs.word_order import words_by_position

CLASSES = ["CleanAndJerk", "Diving", "Bowling", "WritingOnBoard"]


def settings(path: Path, rows: str) -> dict[str, str]:
    path.write_text(f"original,manual,category\n{rows}", encoding="utf-8")
    return {"words_by": "position", "word_names": str(path)}


def test_one_renamed_class_shifts_those_between(tmp_path: Path) -> None:
    """CleanAndJerk was published as Weight Lifting, which comes after Diving."""
    rows = "bowling,Bowling,a\nCleanAndJerk,Weight Lifting,a\nDiving,Diving,a\nWritingOnBoard,Writing On Board,a\n"
    found = words_by_position(settings(tmp_path / "names.csv", rows), CLASSES)
    assert found == {"CleanAndJerk": "Diving", "Diving": "CleanAndJerk"}


def test_names_decide_unless_told_otherwise() -> None:
    assert words_by_position({}, CLASSES) == {}
    assert words_by_position({"words_by": "name"}, CLASSES) == {}


def test_what_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="word_names"):
        words_by_position({"words_by": "position"}, CLASSES)
    with pytest.raises(UsageError, match="cannot be read"):
        words_by_position({"words_by": "position", "word_names": str(tmp_path / "none.csv")}, CLASSES)
    with pytest.raises(UsageError, match="no row for class 'Diving'"):
        words_by_position(settings(tmp_path / "a.csv", "Bowling,Bowling,a\nCleanAndJerk,Lift,a\n"), CLASSES)
    other = tmp_path / "b.csv"
    other.write_text("name,label\nBowling,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="columns original and manual"):
        words_by_position({"words_by": "position", "word_names": str(other)}, CLASSES)
