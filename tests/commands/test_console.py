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


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_word_is_cut_however_narrow_the_terminal_is(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_width", lambda: width)
    columns = ("method", *(f"transductive{i}" for i in range(6)))
    console.print_table(
        "Heads", columns, [("tip-adapter", *(f"inductive-{i}" for i in range(6)))], "That is all."
    )
    printed = capsys.readouterr().out
    assert all(
        word in printed for word in (*columns[1:], "tip-adapter", "inductive-5", "Heads", "That is all.")
    )
    assert max(map(len, printed.splitlines())) <= width
