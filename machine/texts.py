"""Text from elsewhere: CSV tables as people have them, and names that are not UTF-8."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from ..errors import FsmmError, UsageError, listed
from .files import refuse_special

_DIVIDERS = ",;\t"


@dataclass
class CsvTable:
    """The content of a CSV file."""

    columns: list[str]
    """The names of the columns, which are different and not empty."""
    rows: list[tuple[int, list[str]]]
    """The number of the line and the cells, one a column, of each row that is not blank."""


def read_csv(path: Path, *, error: type[FsmmError] = UsageError) -> CsvTable:
    """The table in a CSV file, whose first line names the columns.

    The file is UTF-8, with or without a mark, or UTF-16; cells are divided by commas, semicolons or tabs, whichever the
    first line has most of. Blank lines, spaces and tabs around cells, surplus empty cells at the end of a line and
    columns without a name (pandas writes its row numbers so) are passed over. Raises ``error``, with the line, for
    anything else.
    """
    refuse_special(path, "CSV file", error=error)
    try:
        text = _decoded(path.read_bytes())
    except OSError as found:
        raise error(f"The CSV file {str(path)!r} cannot be read: {found.strerror}.") from None
    except UnicodeDecodeError:
        raise error(f"The CSV file {str(path)!r} is cut short or is no text; save it as UTF-8.") from None
    lines = io.StringIO(text, newline="")  # Lines end at LF and CR alone, as in CSV.
    head = lines.readline()
    lines.seek(0)
    reader = csv.reader(lines, delimiter=max(_DIVIDERS, key=head.count), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = [(reader.line_num, [cell.strip(" \t") for cell in cells]) for cells in reader]
    except csv.Error as found:
        raise error(f"Line {reader.line_num} of {str(path)!r} is not CSV: {found}.") from None
    rows = [(line, cells) for line, cells in rows if any(cells)]
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
    return CsvTable(columns, [(line, [cells[i] for i in named]) for line, cells in rows])


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    return data.decode("utf-8-sig", "surrogateescape")


def plain_text(name: str) -> str:
    r"""A file name as text that UTF-8 can hold; distinct names stay distinct.

    Bytes that are not UTF-8 become ``\xff``, a backslash becomes two; all other text, newlines too, stays.
    """
    raw = name.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "backslashreplace")
