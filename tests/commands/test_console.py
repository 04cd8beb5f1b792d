"""What commands print: names from strangers are shown, and steer nothing."""

from __future__ import annotations

import pytest

from fsmm.commands import console


def test_a_name_forges_no_line_and_no_column(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_row(["a\n/b.mp4\tcat\t0.99", "dog", "0.51", ""])
    assert capsys.readouterr().out == "a\\n/b.mp4\\tcat\\t0.99\tdog\t0.51\n"
    console.print_row(["café 中.mp4", "\udcff"])
    assert capsys.readouterr().out == "café 中.mp4\t\\udcff\n"


def test_a_name_in_a_table_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("", ("clip", "label"), [("a\x1b[2J\u2028b", "dog\rcat")])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "dog" in line]
    assert "a\\x1b[2J\\u2028b" in line
    assert "dog\\rcat" in line
