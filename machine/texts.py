"""Text from elsewhere: CSV tables as people have them, names that are not UTF-8, and labels that mean none."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import FsmmError, UsageError, listed
from .files import refuse_special

_DIVIDERS = ",;\t"
_EXCEL_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SAMPLE_BYTES = 4096
_NAMELESS = re.compile(
    r"Unnamed: \d+(?:\.\d+)?"
)  # how pandas calls a column without a name when it writes it again
_NO_LABEL = frozenset(("", "-1", "None", "<NA>"))
_LIKE_NO_LABEL = frozenset(("none", "null", "n/a", "na", "#n/a", "<na>", "nil", "unlabelled", "unlabeled"))
_NAMED = 3  # The number of names that a warning gives.


@dataclass
class CsvTable:
    """The content of a CSV file."""

    columns: list[str]
    """The names of the columns, which are different and not empty."""
    rows: list[tuple[int, list[str]]]
    """The number of the line and the cells, one a column, of each row that is not blank."""
    warnings: list[str] = field(default_factory=list)
    """Sentences about what was read in a way that may be wrong."""


def read_csv(path: Path, *, error: type[FsmmError] = UsageError) -> CsvTable:
    """The table in a CSV file, whose first line that is not blank names the columns.

    The file is UTF-8 or UTF-16, with or without a mark; cells are divided by commas, semicolons or tabs, whichever the
    first line has most of, or by what Excel's line ``sep=;`` says. A quoted cell may hold line breaks. Blank lines,
    spaces and tabs around cells, surplus empty cells at the end of a line and columns without a name (pandas writes its
    row numbers so) are passed over. Raises ``error``, with the line on which a row begins, for anything else.
    """
    refuse_special(path, "CSV file", error=error)
    try:
        text = _decoded(path.read_bytes())
    except OSError as found:
        raise error(f"The CSV file {str(path)!r} cannot be read: {found.strerror}.") from None
    except UnicodeDecodeError:
        raise error(f"The CSV file {str(path)!r} is cut short or is no text; save it as UTF-8.") from None
    header, rows = _parsed(path, text, error)
    for line, cells in rows:
        while len(cells) > len(header) and not cells[-1]:
            cells.pop()
        if len(cells) != len(header):
            raise error(
                f"Line {line} of {str(path)!r} has {len(cells)} cells; its first line has {len(header)}."
            )
    named = [i for i, name in enumerate(header) if name]
    columns = [header[i] for i in named]
    if not columns or len(set(columns)) < len(columns):
        held = listed([name or "a column without a name" for name in header])
        raise error(
            f"The first line of {str(path)!r} must name its columns by different names; it has {held}."
        )
    strange = [line for line, cells in rows if any("\udc80" <= c <= "\udcff" for cell in cells for c in cell)]
    warnings = []
    if strange:
        warnings.append(
            f"Line {strange[0]} of {str(path)!r} holds bytes that are not UTF-8, kept as they are; if names come out "
            "wrong, save the file as UTF-8."
        )
    return CsvTable(columns, [(line, [cells[i] for i in named]) for line, cells in rows], warnings)


def _parsed(path: Path, text: str, error: type[FsmmError]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The stripped cells of the header, and the line and stripped cells of each later row that is not blank."""
    lines = io.StringIO(text, newline="")  # Lines end at LF and CR alone, as in CSV.
    before, head = 0, lines.readline()
    while head and not head.strip(" \t\r\n"):
        before, head = before + 1, lines.readline()
    if said := _EXCEL_LINE.fullmatch(head):
        before, divider = before + 1, said[1]
    else:
        divider = _divider(head)
    lines.seek(0)
    for _ in range(before):
        lines.readline()
    reader = csv.reader(lines, delimiter=divider, strict=True, skipinitialspace=True)
    found: list[tuple[int, list[str]]] = []
    first = before + 1
    try:
        for cells in reader:
            found.append((first, [cell.strip(" \t") for cell in cells]))
            first = before + reader.line_num + 1
    except csv.Error as problem:
        cause = "a quotation mark is not closed" if "unexpected end" in str(problem) else str(problem)
        raise error(f"The row that begins on line {first} of {str(path)!r} is not CSV: {cause}.") from None
    header = (
        ["" if _NAMELESS.fullmatch(name.strip()) else name.strip() for name in found[0][1]] if found else []
    )
    return header, [(line, cells) for line, cells in found[1:] if any(cells)]


def _divider(head: str) -> str:
    """The divider that a header has most of outside quotation marks."""
    bare = "".join(head.split('"')[::2])
    return max(_DIVIDERS, key=bare.count)


def _decoded(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding)
    # Every second byte of Latin text in UTF-16, its dividers and line ends included, is 0; UTF-8 has no such byte.
    first, second = data[:_SAMPLE_BYTES:2].count(0), data[1:_SAMPLE_BYTES:2].count(0)
    if first + second > len(data[:_SAMPLE_BYTES]) // 50 and max(first, second) > 4 * min(first, second):
        return data.decode("utf-16-be" if first > second else "utf-16-le")
    return data.decode("utf-8-sig", "surrogateescape")


def plain_text(name: str) -> str:
    r"""A file name as text that UTF-8 can hold; distinct names stay distinct.

    Bytes that are not UTF-8 become ``\xff``, a backslash becomes two; all other text, newlines too, stays.
    """
    raw = name.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    r"""A text as one line that only shows itself: what ends a line, divides columns or steers a terminal is escaped.

    Names of files and classes may come from strangers, and a name that ends its line could forge the next one.

    >>> printable("a\n/b.mp4\tcat\x1b[2J"), printable("caf\u00e9 \u4e2d")
    ('a\\n/b.mp4\\tcat\\x1b[2J', 'caf\xe9 \u4e2d')
    """
    return "".join(
        letter
        if unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp")
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def composed(name: str) -> str:
    r"""A name in the composed form of Unicode (NFC), so that the two spellings of an accent are one name.

    >>> composed("cafe\u0301") == "caf\u00e9"
    True
    """
    return unicodedata.normalize("NFC", name)


def spellings(name: str) -> list[str]:
    """A name as it is, then with its accents composed and decomposed, each spelling once."""
    return list(dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))))


def is_unlabelled(text: str) -> bool:
    """Whether a label means that there is none: empty, blank, -1, nan in any case, None, or <NA>.

    >>> [is_unlabelled(text) for text in (" ", "NaN", "<NA>", "none")]
    [True, True, True, False]
    """
    text = text.strip()
    return text in _NO_LABEL or text.lower() == "nan"


def class_warnings(label_set: str, names: Sequence[str]) -> list[str]:
    """Sentences about class names that may be one name or none: other spellings of a name, and words such as "null"."""
    found = []
    if same := _alike(names):
        pairs = "; ".join(", ".join(map(repr, group)) for group in same[:_NAMED])
        found.append(
            f"Label set {label_set!r} has classes whose names differ in upper and lower case, spaces or the way a "
            f"number is written alone ({pairs}); spell them alike if they are one class."
        )
    if odd := [name for name in names if name.lower() in _LIKE_NO_LABEL]:
        found.append(
            f"Label set {label_set!r} has a class named {odd[0]!r}; if it means that there is no label, leave such "
            "cells empty."
        )
    return found


def _alike(names: Iterable[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _key(name: str) -> str:
    """A text that two spellings of a name share: they differ in case, spaces, or the way a number is written.

    >>> [_key(text) for text in ("Horse_riding", "horse  riding", "01", "1.0")]
    ['horse riding', 'horse riding', '1', '1']
    """
    plain = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    words = " ".join(seen.replace("_", " ").split())
    whole, point, rest = words.partition(".")
    if not (whole.isascii() and whole.isdecimal() and (not point or not rest.strip("0"))):
        return words
    return whole.lstrip("0") or "0"


_PLAIN_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")


def without_formula(cell: str) -> str:
    """The text of a cell that no spreadsheet takes for a formula: one that begins like a formula follows a quote mark.

    Texts of tables that are written may come from strangers, such as the names of classes and files.

    >>> without_formula("=HYPERLINK(A1)"), without_formula("-1"), without_formula("a=b")
    ("'=HYPERLINK(A1)", '-1', 'a=b')
    """
    begins = cell.lstrip(" ")[:1]
    is_formula = (
        begins and begins in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20" and not _PLAIN_NUMBER.fullmatch(cell)
    )
    return f"'{cell}" if is_formula else cell


def without_formulas(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a table's row by column, with ``without_formula`` done to its texts.

    >>> without_formulas({"label": "@x", "probability": -0.5})
    {'label': "'@x", 'probability': -0.5}
    """
    return {key: without_formula(cell) if isinstance(cell, str) else cell for key, cell in row.items()}


_NUMBER = re.compile(r"(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d\d?)?")


def seconds_of(text: str) -> float | None:
    """A time in seconds, as 12.5 or 12,5, as 1:02.5 (minutes) or as 01:02:03.5 (hours); None where there is none.

    Raises ValueError, with the rest of a sentence, for a text of another form.

    >>> seconds_of("90"), seconds_of("1:30.5"), seconds_of("01:00:00,250"), seconds_of("NaN")
    (90.0, 90.5, 3600.25, None)
    """
    if text.strip() != "-1" and is_unlabelled(text):
        return None
    *front, last = text.strip().removesuffix("s").strip().split(":")
    if last.startswith("-") or (front and front[0].startswith("-")):
        raise ValueError("is negative")
    whole = all(part.isascii() and part.isdecimal() for part in front)
    if len(front) > 2 or not whole or not last.isascii() or not _NUMBER.fullmatch(last):
        raise ValueError("is no time; write seconds (12.5) or hours, minutes and seconds (0:01:12.5)")
    if not front and re.fullmatch(r"\d{1,3},\d{3}", last):
        raise ValueError("may be thousands or thousandths; write seconds with a point")
    parts = [*map(float, front), float(last.replace(",", "."))]
    if any(part >= 60 for _, part in pairwise(parts)):
        raise ValueError("has 60 or more minutes or seconds after a colon")
    return sum(part * 60.0**power for power, part in enumerate(reversed(parts)))
