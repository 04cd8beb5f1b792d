"""Class words by position, as the published loaders of the audio-visual zero-shot family give them.

Those loaders sort the vectors by the names under which they were published, and a class gets the vector at its place
among the data set's own sorted names. Where the two orders differ, a class gets another class's vector.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import UsageError

WORDS_BY, WORD_NAMES = "words_by", "word_names"
COLUMNS = ("original", "manual")


def words_by_position(settings: Mapping[str, str], classes: Sequence[str]) -> dict[str, str]:
    """The class whose vector each class gets, for those that do not get their own; empty where names decide.

    settings: the head's, of which words_by and word_names count; classes: all classes of the label set.
    Raises UsageError where words_by=position has no file of names, or the file does not name every class.
    """
    if settings.get(WORDS_BY, "name") != "position":
        return {}
    if not settings.get(WORD_NAMES):
        raise UsageError(
            "words_by=position needs the names under which the vectors were published; give a CSV file with the "
            "columns original and manual by --set word_names=FILE.csv."
        )
    published = read_names(Path(settings[WORD_NAMES]).expanduser())
    lacking = [name for name in classes if name.lower() not in published]
    if lacking:
        raise UsageError(f"{settings[WORD_NAMES]!r} has no row for class {lacking[0]!r}; add one.")
    by_published = sorted(classes, key=lambda name: published[name.lower()])
    return {mine: other for mine, other in zip(sorted(classes), by_published) if mine != other}


def read_names(path: Path) -> dict[str, str]:
    """The published name of each class by the class's own in lower case, from a CSV file.

    Raises UsageError where it cannot be read or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{str(path)!r} cannot be read as a CSV file ({reason}).") from None
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise UsageError(
            f"{str(path)!r} needs the columns {' and '.join(COLUMNS)}, and a row for each class."
        )
    return {str(row["original"]).strip().lower(): str(row["manual"]).strip() for row in rows}
