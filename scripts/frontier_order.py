"""The tables of order certificates: what the order of steps is worth, class by class and for each data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from figures.data import UNKNOWN, Widths
from frontier_heads import Tables, rounded
from study_table import label_of, split_of

from fsmm.studies.grid.store import Study

SETS = {"utd": "UTD-MHAD", "ave28": "AVE-28", "demo": "demo", "demo_order": "demo, orders"}
"""The name of each data set by what its block begins with."""
LABELS = ("otam", "diagonal")
"""The labels of the rows in which steps are aligned, and in which those of the same number are matched."""
FIRST = "in order"
NEEDS = "●"
"""The mark of a class whose loss by shuffling is surely above zero."""
COUNT = "classes that need order"
Certificates = Mapping[str, Mapping[str, Any]]
"""The certificates of a data set by their class splits."""


def order_tables(tables: Tables, study: Study) -> None:
    """A table of classes for each data set of which a certificate is there, and one of all data sets; none without."""
    held = {(name, label): certificates(study, block_of(name), label) for name in SETS for label in LABELS}
    if not any(held.values()):
        return
    for name, title in SETS.items():
        found, diagonal = (held[name, label] for label in LABELS)
        summary(tables, title, name, found)
        if found:
            class_table(tables, name, found)
        if diagonal:
            summary(tables, f"{title}, diagonal", name, diagonal)
        print(f"Order certificates of {title}: {len(found)}, by the diagonal {len(diagonal)}.")


def block_of(name: str) -> str:
    """The block of the certificates of a data set."""
    return f"{name}-certificate"


def certificates(study: Study, block: str, label: str) -> Certificates:
    """The certificates of a block's rows of this label that are done."""
    rows = [row for row in study.done if row.block == block and label_of(row) == label]
    return {split_of(row): study.metrics(row)["order_certificate"] for row in rows}


def command(tables: Tables, name: str) -> str:
    """What makes the certificates of a data set again."""
    part = "." if "--only" in tables.command else " --only "
    return f"{tables.command}{part}{block_of(name)}"


def class_table(tables: Tables, name: str, found: Certificates) -> None:
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
                episodes=document["episodes"], command=command(tables, name),
                note=NEEDS if needs else None,
            )  # fmt: skip
    columns = [*rows[0][1]["accuracy"]]
    tables.start(table, "class", columns, details=details, difference_from=FIRST)


def summary(tables: Tables, title: str, name: str, found: Certificates) -> None:
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
            command=command(tables, name) if found else None,
        )  # fmt: skip
    classes = [row for document in found.values() for row in document["rows"][:-1]]
    count = sum(row["needs_order"] for row in classes) if classes else None
    more = {"command": command(tables, name), "note": f"of {len(classes)}"} if classes else {}
    tables.add(table, title, COUNT, count, unit="classes", **more)
    tables.start(table, "data set", [*columns, COUNT], difference_from=FIRST)


def mean(values: list[float]) -> float:
    return float(np.mean(values))
