"""CSV tables as people have them, times as people write them, and labels that mean none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.machine.texts import class_warnings, is_unlabelled, read_csv, seconds_of

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")


def table(folder: Path, text: str, encoding: str = "utf-8") -> list[dict[str, str]]:
    """The rows by column name; line ends stay as they are in ``text``."""
    (folder / "t.csv").write_bytes(text.encode(encoding))
    read = read_csv(folder / "t.csv")
    return [dict(zip(read.columns, cells)) for _, cells in read.rows]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "text",
    [
        "path,label\na/1.mp4,x y\n",
        "path;label\r\na/1.mp4;x y\r\n",
        "path\tlabel\ra/1.mp4\tx y\r",
        "sep=;\r\npath;label\r\na/1.mp4;x y\r\n",
        '"sep=,"\npath,label\na/1.mp4,x y\n',
        "\n  \npath,label\n\na/1.mp4,x y\n\n",
        ",path,label\n0,a/1.mp4,x y\n",
        "Unnamed: 0.1,Unnamed: 0,path,label\n0,0,a/1.mp4,x y\n",
        "path,label,\na/1.mp4,x y,\n",
        'path, label\na/1.mp4, "x y"\n',
        '"path","label"\n"a/1.mp4","x y"\n',
    ],
    ids=[
        "commas", "semicolons", "tabs", "sep", "quoted sep", "blank", "pandas", "pandas twice", "trailing", "spaces",
        "quoted",
    ],
)  # fmt: skip
def test_one_table_in_many_forms(tmp_path: Path, text: str, encoding: str) -> None:
    assert table(tmp_path, text, encoding) == [{"path": "a/1.mp4", "label": "x y"}]


def test_a_quoted_cell_holds_dividers_and_line_breaks_and_rows_keep_their_lines(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('"a;b;c",label\n"x\ny","1, 2"\n\nz,"say ""hi"""\n')
    read = read_csv(tmp_path / "t.csv")
    assert read.columns == ["a;b;c", "label"]
    assert read.rows == [(2, ["x\ny", "1, 2"]), (5, ["z", 'say "hi"'])]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('path,label\na,"b\nc,d\n', "begins on line 2 .* a quotation mark is not closed"),
        ('path,label\na,b\nc,"d"e\n', "begins on line 3 .* is not CSV"),
        ("path,label\na,b\nc,d,e\n", "Line 3 of .* has 3 cells; its first line has 2"),
        ("", "must name its columns"),
        ("sep=;\n", "must name its columns"),
    ],
)
def test_faults_name_the_line_on_which_the_row_begins(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        table(tmp_path, text)


def test_bytes_that_are_not_utf8_are_kept_and_told(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("path,label\na,b\nc,café\n".encode("latin-1"))
    read = read_csv(tmp_path / "t.csv")
    assert read.rows[1] == (3, ["c", "caf\udce9"])
    assert len(read.warnings) == 1
    assert "Line 3" in read.warnings[0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12.0), ("12.5", 12.5), ("12,5", 12.5), (".5", 0.5), ("3 s", 3.0), ("1.25e+01", 12.5), ("1:02", 62.0),
        ("90:00", 5400.0), ("01:02:03.5", 3723.5), ("00:00:01,250", 1.25), ("0", 0.0),
    ],
)  # fmt: skip
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "nan", "None", "<NA>"])
def test_no_time(text: str) -> None:
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-3", "negative"), ("-0:03", "negative"), ("inf", "no time"), ("soon", "no time"), ("1:2:3:4", "no time"),
        ("1,500", "thousands or thousandths"), ("1:75", "60 or more"), ("1:-5", "negative"), ("-1", "negative"),
    ],
)  # fmt: skip
def test_times_of_another_form_say_why(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        seconds_of(text)


def test_labels_that_mean_none() -> None:
    assert all(map(is_unlabelled, ("", "  ", "-1", "nan", "NaN", "NAN", "None", "<NA>")))
    assert not any(map(is_unlabelled, ("none", "null", "0", "nano", "NA")))


def test_class_names_that_may_be_one_or_none_are_warned_about() -> None:
    case, none = class_warnings("y", ["Run", "run", "jump", "null"])
    assert "'Run', 'run'" in case
    assert "'null'" in none
    assert class_warnings("y", ["run", "jump"]) == []
    for one, other in (
        ("1", "1.0"),
        ("07", "7"),
        ("horse riding", "horse_riding"),
        ("horse riding", "horse\u00a0riding"),
        ("jump", "jump\u200b"),
        ("\uff21", "a"),
    ):
        (alike,) = class_warnings("y", [one, other, "1.5", "10", "v1.0"])
        assert f"({one!r}, {other!r})" in alike
