"""What native libraries print past Python."""

from __future__ import annotations

import os

import pytest

from fsmm.machine.foreign_lines import quiet_libraries


def test_notes_of_libraries_are_dropped_and_later_lines_are_not(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with quiet_libraries():
        os.write(2, b"INFO: a delegate was created\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "before\nafter\n"


def test_an_error_is_raised_and_later_lines_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    @quiet_libraries()
    def load() -> None:
        raise ValueError("no model")

    with pytest.raises(ValueError, match="no model"):
        load()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
