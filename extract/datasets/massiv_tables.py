"""The official annotation files of 3MASSIV, which are read liberally and reported on strictly.

``3massiv_{train,val,test}.csv`` gives five labels a post, ``3massiv_concept_{train,val,test}.csv`` the name
of its topic. Labels may be names or numbers; this module reconciles the two kinds of file.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...cache.catalog import UNLABELLED, LabelSet
from ...errors import UsageError

SPLITS = ("train", "val", "test")
# label set -> its number of classes in the official files
LABEL_SETS = {"Topic": 34, "Emotion": 12, "AudioFormat": 8, "VideoFormat": 10, "Language": 13}
TOPIC = "Topic"
_ID_COLUMN = "PostIndex"
_CONCEPT_COLUMNS = ("post_id", "concept", "concept_id")
_FILE = re.compile(r"3massiv_(concept_)?(train|val|test)\.csv", re.IGNORECASE)
_NAMED = 5


@dataclass
class Tables:
    """The content of the annotation files.

    split: post id to its split, in the order of the files. cells: per label set, post id to label as written
    (unlabelled posts left out). topics: post id to (number or None, name) of the concept files.
    """

    split: dict[int, str] = field(default_factory=dict)
    cells: dict[str, dict[int, str]] = field(default_factory=lambda: {name: {} for name in LABEL_SETS})
    topics: dict[int, tuple[int | None, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def annotation_files(paths: list[Path]) -> dict[tuple[str, str], Path]:
    """A mapping from ("main" or "concept", split) to the file among ``paths``.

    If several files fit, the first in order is taken.
    """
    found: dict[tuple[str, str], Path] = {}
    for path in paths:
        if match := _FILE.fullmatch(path.name):
            found.setdefault(("concept" if match[1] else "main", match[2].lower()), path)
    return found


def read_tables(files: dict[tuple[str, str], Path]) -> Tables:
    """Read the files and reconcile them.

    Raises UsageError if a file lacks its columns or no main file exists.
    """
    tables = Tables()
    present = [split for split in SPLITS if ("main", split) in files]
    if not present:
        raise UsageError(
            "None of 3massiv_train.csv, 3massiv_val.csv and 3massiv_test.csv was found; put them into --data."
        )
    if absent := [split for split in SPLITS if split not in present]:
        tables.warnings.append(
            f"There is no 3massiv_{absent[0]}.csv" + (f" nor {absent[1]}" if absent[1:] else "") + "."
        )
    for split in present:
        _read_main(files["main", split], split, tables)
    for split in SPLITS:
        if ("concept", split) in files:
            _read_concepts(files["concept", split], split, tables)
    return tables


def _read_main(path: Path, split: str, tables: Tables) -> None:
    listed: Counter[str] = Counter()
    for post, row in _rows(path, _ID_COLUMN, tuple(LABEL_SETS), tables.warnings):
        if post in tables.split:
            listed[tables.split[post]] += 1
            continue
        tables.split[post] = split
        for name in LABEL_SETS:
            if (cell := _label(row[name])) is not None:
                tables.cells[name][post] = cell
    for other, count in listed.items():
        tables.warnings.append(
            f"{path.name} repeats {count} post ids of {other}; the first row of each counts."
        )


def _read_concepts(path: Path, split: str, tables: Tables) -> None:
    seen: set[int] = set()
    for post, row in _rows(path, *_CONCEPT_COLUMNS[:1], _CONCEPT_COLUMNS[1:], tables.warnings):
        seen.add(post)
        number, name = _label(row["concept_id"]), _label(row["concept"])
        if name is not None:
            tables.topics[post] = (int(number) if number is not None and number.isdecimal() else None, name)
    ours = {post for post, where in tables.split.items() if where == split}
    if lacking := sorted(ours - seen):
        tables.warnings.append(
            f"{path.name} lacks {_posts(lacking)} of 3massiv_{split}.csv; their other labels stand."
        )
    if extra := sorted(seen - ours):
        tables.warnings.append(
            f"{path.name} has {_posts(extra)} that 3massiv_{split}.csv lacks; they are left out."
        )


def _rows(
    path: Path, key: str, columns: tuple[str, ...], warnings: list[str]
) -> list[tuple[int, dict[str, str]]]:
    """The (post id, cells by official column name) of each row.

    Rows without a whole-number id are left out with a warning.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", "replace")
        table = list(csv.reader(io.StringIO(text, newline="")))
    except (OSError, csv.Error) as error:
        raise UsageError(f"{path.name} cannot be read ({error}).") from None
    places = _places(path, table[0] if table else [], (key, *columns))
    rows, faulty = [], []
    for line, cells in enumerate(table[1:], 2):
        if not any(cell.strip() for cell in cells):
            continue
        post = _number(cells[places[key]]) if len(cells) > max(places.values()) else None
        if post is None:
            faulty.append(line)
        else:
            rows.append((post, {column: cells[places[column]] for column in columns}))
    if faulty:
        warnings.append(
            f"{path.name} has {len(faulty)} faulty rows, the first in line {faulty[0]}; they are left out."
        )
    return rows


def _places(path: Path, header: list[str], columns: tuple[str, ...]) -> dict[str, int]:
    plain = [name.strip().lower() for name in header]
    absent = [column for column in columns if column.lower() not in plain]
    if absent:
        raise UsageError(
            f"{path.name} lacks the column {absent[0]}; its first line should be {','.join(columns)} but is "
            f"{','.join(header)!r}."
        )
    return {column: plain.index(column.lower()) for column in columns}


def _number(cell: str) -> int | None:
    cell = cell.strip()
    return int(cell) if cell.isascii() and cell.isdecimal() else None


def _label(cell: str) -> str | None:
    """A label without surrounding or repeated spaces; None if the cell says unlabelled."""
    cell = " ".join(cell.split())
    return None if cell.lower() in ("", "-1", "nan", "none") else cell


def _posts(posts: list[int]) -> str:
    named = ", ".join(map(str, posts[:_NAMED])) + (" ..." if len(posts) > _NAMED else "")
    return f"{len(posts)} post{'s' if len(posts) != 1 else ''} ({named})"


def label_set(tables: Tables, name: str, posts: list[int]) -> LabelSet:
    """The label set over ``posts``.

    Its classes come from all rows of the files and have a fixed order: by number if the files have numbers,
    else by name.
    """
    cells = dict(tables.cells[name])
    numbered = bool(cells) and all(_number(cell) is not None for cell in cells.values())
    topic_names = _topic_names(tables) if name == TOPIC else {}
    if name == TOPIC:
        _fill_topics(tables, cells, topic_names, numbered or not cells)
        numbered = numbered or (not tables.cells[name] and bool(cells) and bool(topic_names))
    if numbered:
        numbers = {post: int(cell) for post, cell in cells.items()}
        count = max(LABEL_SETS[name], 1 + max(numbers.values()), 1 + max(topic_names, default=-1))
        names = _distinct([topic_names.get(number, f"{name} {number}") for number in range(count)])
    else:
        names = _ordered(set(cells.values()), topic_names)
        index = {class_name: number for number, class_name in enumerate(names)}
        numbers = {post: index[cell] for post, cell in cells.items()}
    if len(names) != LABEL_SETS[name]:
        tables.warnings.append(
            f"{name} has {len(names)} classes in these files; {LABEL_SETS[name]} are expected."
        )
    return LabelSet(names, np.array([numbers.get(post, UNLABELLED) for post in posts], np.int32))


def _topic_names(tables: Tables) -> dict[int, str]:
    """The name that the concept files most often give each topic number."""
    votes: dict[int, Counter[str]] = {}
    for number, name in tables.topics.values():
        if number is not None:
            votes.setdefault(number, Counter())[name] += 1
    unclear = sorted(number for number, names in votes.items() if len(names) > 1)
    if unclear:
        tables.warnings.append(
            f"The concept files give several names to topic {unclear[0]}; the most frequent counts."
        )
    return {
        number: min(names, key=lambda name: (-names[name], name)) for number, names in sorted(votes.items())
    }


def _fill_topics(tables: Tables, cells: dict[int, str], names: dict[int, str], numbered: bool) -> None:
    """Take each topic that the main file lacks from the concept files, and warn about topics that differ."""
    filled = differing = 0
    for post, (number, name) in tables.topics.items():
        if post not in tables.split:
            continue
        concept = name if not numbered else None if number is None else str(number)
        if concept is None:
            continue
        if post not in cells:
            cells[post] = concept
            filled += 1
        elif cells[post] != concept and (not numbered or int(cells[post]) != int(concept)):
            differing += 1
    if filled:
        tables.warnings.append(f"{filled} posts have their Topic from the concept files alone.")
    if differing:
        tables.warnings.append(f"Topic and concept differ for {differing} posts; Topic counts.")


def _ordered(names: set[str], numbered: dict[int, str]) -> list[str]:
    """The names in the order of the concept files' numbers if those name all classes, else sorted by name."""
    ordered = list(dict.fromkeys(numbered.values()))
    return ordered if names <= set(ordered) else sorted(names)


def _distinct(names: list[str]) -> list[str]:
    """The names made distinct: names that two numbers share get their number appended."""
    often = Counter(names)
    return [name if often[name] == 1 else f"{name} ({number})" for number, name in enumerate(names)]
