"""The columns that cut clips out of files: ``start`` and ``end`` or ``duration``, under their usual names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from ...errors import UsageError, listed
from ...machine.texts import seconds_of
from .base import Span

START, END, LENGTH = "start", "end", "duration"
_TIMES = {
    **dict.fromkeys(
        ("start", "startseconds", "startsec", "starts", "starttime", "timestart", "tstart"), START
    ),
    **dict.fromkeys(("starttimestamp", "begin", "onset"), START),
    **dict.fromkeys(("end", "endseconds", "endsec", "ends", "endtime", "timeend", "tend"), END),
    **dict.fromkeys(("endtimestamp", "stop", "stoptime", "stoptimestamp", "offset"), END),
}
"""The usual names of the two columns, in lower case and without anything but letters."""
_LENGTHS = frozenset(
    f"{name}{unit}" for name in ("duration", "dur", "length") for unit in ("", "s", "sec", "seconds")
)
_OTHER_LENGTHS = re.compile(r"(?:duration|dur|length)(?:frames?|ms|msec|millis|milliseconds)|n(?:um)?frames")
_OTHER_UNITS = re.compile(
    r"(?:start|begin|end|stop)(?:frames?|ms|msec|millis|milliseconds)|frames?(?:start|end|stop)"
)


def time_column(name: str) -> str | None:
    """``start`` or ``end`` where a column's name is one of their usual ones, whatever its case and signs; else None.

    >>> time_column("Start Time"), time_column("end_seconds"), time_column("label")
    ('start', 'end', None)
    """
    return _TIMES.get(_letters(name))


def time_columns(names: Sequence[str]) -> list[str]:
    """The names of columns, where those that say when clips begin and end have the usual ones.

    Beside a start, a length is a time as well, which counts where there is no end; beside a length, an offset is a
    start. Raises UsageError where a start has a length in frames or milliseconds alone.

    >>> time_columns(["path", "offset", "dur"]), time_columns(["onset", "offset"]), time_columns(["path", "length"])
    (['path', 'start', 'duration'], ['start', 'end'], ['path', 'length'])
    """
    found = [time_column(name) or name for name in names]
    letters = [_letters(name) for name in names]
    lengths = [place for place, name in enumerate(letters) if name in _LENGTHS]
    if lengths and START not in found and "offset" in letters:
        found[letters.index("offset")] = START
    if START in found and lengths:
        found[lengths[0]] = LENGTH
    elif START in found and END not in found:
        _refuse_other_lengths(names)
    return found


def _refuse_other_lengths(names: Sequence[str]) -> None:
    """Raise UsageError for columns that say how long clips are in other units than seconds."""
    if other := [name for name in names if _OTHER_LENGTHS.fullmatch(_letters(name))]:
        raise UsageError(
            f"The columns {listed(other)} of the CSV file are no seconds, and say how long clips are; give 'end' or "
            "'duration' in seconds, or rename them if they are labels."
        )


def without_other_units(columns: Sequence[str]) -> list[str]:
    """The columns without those that count frames or milliseconds, which no label set is made of.

    Raises UsageError where they are the only ones that say where clips begin and end.
    """
    other = [name for name in columns if _OTHER_UNITS.fullmatch(_letters(name))]
    if other and not {START, END} & set(columns):
        raise UsageError(
            f"The columns {listed(other)} of the CSV file are no seconds; give 'start' and 'end' in seconds "
            "(a frame's number divided by the frame rate), or rename them if they are labels."
        )
    return [name for name in columns if name not in other]


def span_of(row: Mapping[str, str], line: int, file: str) -> Span | None:
    """The part of its file that a row asks for; None for the whole file.

    Raises UsageError, with the line, for times that are no times or lie in the wrong order.
    """
    start, end = (_seconds(row.get(column, ""), column, line) for column in (START, END))
    if (
        START in row
        and END not in row
        and (length := _seconds(row.get(LENGTH, ""), LENGTH, line)) is not None
    ):
        end = (start or 0.0) + length
    if end is None and not start:
        return None
    start, end = start or 0.0, math.inf if end is None else end
    if end <= start:
        raise UsageError(
            f"Line {line} of the CSV file: the clip ends at {end:g} s and starts at {start:g} s; its end must come "
            "after its start."
        )
    return Span(start, end, f"line {line} of {file!r}")


def _seconds(cell: str, column: str, line: int) -> float | None:
    try:
        return seconds_of(cell)
    except ValueError as error:
        raise UsageError(f"Line {line} of the CSV file: {column!r} is {cell!r}, which {error}.") from None


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
