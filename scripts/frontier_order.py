"""The tables of order certificates: what the order of steps is worth, class by class and for each data set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from figures.data import UNKNOWN, Widths
from frontier_heads import Tables, rounded

SETS = {
    "utd": ("UTD-MHAD", "--dataset utd-segments --modalities inertial,skeleton"),
    "ave28": ("AVE-28", "--dataset ave28 --modalities frame,audio"),
    "demo": ("demo", "--dataset demo --modalities frame,flow"),
    "demo_order": ("demo, orders", "--dataset demo --label-set order --modalities frame"),
}
"""The name of each data set, and the options that make its certificates."""
DIAGONAL = "_diagonal"
"""What the name of a file adds to that of its data set where steps of the same number are matched, not aligned."""
FIRST = "in order"
NEEDS = "●"
"""The mark of a class whose loss by shuffling is surely above zero."""
COUNT = "classes that need order"


def order_tables(tables: Tables, folder: Path) -> None:
    """A table of classes for each data set of which a certificate is there, and one of all data sets."""
    for name, (title, options) in SETS.items():
        found = certificates(folder, name)
        summary(tables, title, found, options)
        if found:
            class_table(tables, name, found, options)
        diagonal = certificates(folder, name + DIAGONAL)
        if diagonal:
            summary(tables, f"{title}, diagonal", diagonal, options)
        print(f"Order certificates of {title}: {len(found)}, by the diagonal {len(diagonal)}.")


def certificates(folder: Path, name: str) -> dict[str, Mapping[str, Any]]:
    """The certificates of a data set by their class splits: the files NAME-SPLIT.json."""
    paths = sorted(folder.glob(f"{name}-*.json"))
    return {
        path.stem.removeprefix(f"{name}-"): json.loads(path.read_text(encoding="utf-8")) for path in paths
    }


def command(found: Mapping[str, Any], options: str, split: str) -> str:
    """What makes a certificate again."""
    head = "otam" if found["method"] == "otam" else f"{found['method']} --set matching=diagonal"
    more = f"--method {head} --k-shot 5 --episodes {found['episodes']} --order-certificate --json"
    return f"fsmm episode-eval --cache CACHE {options} --class-split {split} {more}"


def class_table(tables: Tables, name: str, found: Mapping[str, Mapping[str, Any]], options: str) -> None:
    """The classes of all class splits, the one that loses most by shuffling first."""
    rows = [(split, row, document) for split, document in found.items() for row in document["rows"][:-1]]
    rows.sort(key=lambda each: -each[1]["loss"]["shuffled"])
    table, details = f"order-{name}", "class split" if len(found) > 1 else None
    for split, row, document in rows:
        for change, accuracy in row["accuracy"].items():
            needs = change == "shuffled" and row["needs_order"]
            lost, width = row["loss"].get(change), row["interval"].get(change)
            tables.add(
                table, row["name"], change, 100 * accuracy, details=split if details else None,
                difference=None if lost is None else rounded(-100 * lost),
                difference_widths=UNKNOWN if width is None else Widths(clips=rounded(100 * width)),
                episodes=document["episodes"], command=command(document, options, split),
                note=NEEDS if needs else None,
            )  # fmt: skip
    columns = [*rows[0][1]["accuracy"]]
    tables.start(table, "class", columns, details=details, difference_from=FIRST)


def summary(tables: Tables, title: str, found: Mapping[str, Mapping[str, Any]], options: str) -> None:
    """The row of a data set in the table of all: means over class splits, whose half widths are means, too."""
    table, columns = "order-all", (FIRST, "shuffled", "reversed", "single step")
    every = [document["rows"][-1] for document in found.values()]
    for change in columns:
        lost = [row["loss"][change] for row in every if change in row["loss"]]
        width = [row["interval"][change] for row in every if row["interval"].get(change) is not None]
        whole = len(width) == len(every) > 0
        tables.add(
            table, title, change, 100 * mean([row["accuracy"][change] for row in every]) if every else None,
            difference=rounded(-100 * mean(lost)) if lost else None,
            difference_widths=Widths(classes=rounded(100 * mean(width))) if whole else UNKNOWN,
            command=command(next(iter(found.values())), options, "s0" if len(found) > 1 else "default")
            if found else None,
        )  # fmt: skip
    classes = [row for document in found.values() for row in document["rows"][:-1]]
    count = sum(row["needs_order"] for row in classes) if classes else None
    tables.add(table, title, COUNT, count, unit="classes", note=f"of {len(classes)}" if classes else None)
    tables.start(table, "data set", [*columns, COUNT], difference_from=FIRST)


def mean(values: list[float]) -> float:
    return float(np.mean(values))
