"""The tables of heads of docs/results/frontier.md: accuracy beside ProtoNet and beside the best free row, and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from figures.data import UNKNOWN, Figure, Table
from study_table import UNDONE, Cell, cell_of, cells_of, label_of, shots_of

from fsmm.studies.grid.store import Row, Study

SWEEP = "fsmm sweep examples/frontier.yaml --cache CACHE --out frontier"
SETS = {"utd": "UTD-MHAD", "ave28": "AVE-28", "demo": "demo"}
"""The names of the data sets by those of their blocks; a block NAME-trained has rows that belong to NAME."""
FREE = ("protonet", "nearest", "ridge", "simpleshot", "linear-probe", "words alone")
"""The rows that need no training and belong to no method of the frontier."""
FIXED = ("mean of steps' cosines", "chamfer++", "alignment")
"""The rows among which auto-temporal chooses."""
AUTO, BASE, WORDS = "auto-temporal", "protonet", "words alone"


@dataclass
class Tables:
    """The tables of the page that are being made, and the commit by which their figures are recorded."""

    page: str
    commit: str | None
    command: str = SWEEP
    """What makes a figure again that names no command of its own."""
    layouts: dict[str, Table] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)

    def start(self, name: str, corner: str, columns: Sequence[str], **layout: Any) -> None:
        """Begin a table of this name; layout: other fields of Table."""
        self.layouts[name] = Table(
            name=name, corner=corner, columns=tuple(columns), **{"digits": 1, **layout}
        )

    def add(self, table: str, row: str, column: str, value: float | None, **given: Any) -> None:
        """Add a figure to a table; given: other fields of Figure."""
        plain = {
            "part": None, "details": None, "unit": "%", "interval": None, "interval_over": None, "difference": None,
            "difference_widths": UNKNOWN, "episodes": None, "command": self.command, "note": None, "run": None,
        }  # fmt: skip
        commit = None if value is None else self.commit
        where = {"page": self.page, "table": table, "row": row, "column": column}
        self.figures.append(Figure(**{**plain, **where, "value": rounded(value), "commit": commit, **given}))


def rounded(value: float | None) -> float | None:
    """The value with as many digits as are stored; a whole number stays one."""
    return value if value is None or isinstance(value, int) else round(value, 3) + 0.0  # no minus zero


def head_tables(tables: Tables, study: Study, *, machine: str) -> None:
    """Every table that comes of the sweep; what is not done is a dash."""
    for block, name in SETS.items():
        cells = [*cells_of(study, block, BASE), *learned(cells_of(study, f"{block}-trained", BASE))]
        accuracy_table(tables, f"frontier-{block}", cells, base=BASE, prefix="")
        print(f"{name}: {sum(cell is not UNDONE for _, _, cell in cells)} of {len(cells)} cells are done.")
    if orders := cells_of(study, "demo-order", BASE):
        accuracy_table(tables, "frontier-demo-order", orders, base=BASE, prefix="")
    zero_shot_table(tables, study)
    free_tables(tables, study)
    auto_table(tables, study)
    time_tables(tables, study, machine)


def learned(cells: Sequence[tuple[str, int, Cell]]) -> list[tuple[str, int, Cell]]:
    """The cells of heads that learn, of a block that has ProtoNet beside them."""
    return [(label, shots, cell) for label, shots, cell in cells if label != BASE]


def accuracy_table(
    tables: Tables, name: str, cells: Sequence[tuple[str, int, Cell]], *, base: str, prefix: str
) -> None:
    """A table of accuracies with their differences from the row ``base``; a column a number of shots."""
    columns = [*tables.layouts[name].columns] if name in tables.layouts else []
    for label, shots, cell in cells:
        column = prefix or f"{shots}-shot"
        columns += [column] if column not in columns else []
        tables.add(
            name, label, column, cell.value, difference=rounded(cell.difference),
            difference_widths=cell.widths.rounded(3), episodes=cell.episodes,
        )  # fmt: skip
    tables.start(name, "method", columns, difference_from=base)


def zero_shot_table(tables: Tables, study: Study) -> None:
    """Heads without supports: a column a data set."""
    for block, name in SETS.items():
        cells = cells_of(study, f"{block}-zero-shot", WORDS)
        if cells:
            accuracy_table(tables, "frontier-zero-shot", cells, base=WORDS, prefix=name)


def rows_of(study: Study, block: str) -> dict[tuple[str, int], list[Row]]:
    """The rows of a data set's heads that are done on all class splits, by label and shots."""
    mine = [row for row in study.rows if row.block in (block, f"{block}-trained")]
    done = {row.key for row in study.done}
    found: dict[tuple[str, int], list[Row]] = {}
    for row in mine:
        cell = found.setdefault((label_of(row), shots_of(row)), [])
        if all(row.key != other.key for other in cell):
            cell.append(row)
    return {key: rows for key, rows in found.items() if all(row.key in done for row in rows)}


def accuracy_of(study: Study, rows: Sequence[Row]) -> float:
    """The mean accuracy of rows, in per cent."""
    return 100 * float(np.mean([study.metrics(row)["accuracy"] for row in rows]))


def best_of(
    study: Study, rows: dict[tuple[str, int], list[Row]], labels: Sequence[str], shots: int
) -> str | None:
    """The label with the greatest mean accuracy; None where none of them is done."""
    values = {label: accuracy_of(study, rows[label, shots]) for label in labels if (label, shots) in rows}
    return max(values, key=lambda label: values[label]) if values else None


def free_tables(tables: Tables, study: Study) -> None:
    """How far each head lies above the best free row of its task, and which do by more than the interval over clips."""
    columns, labels = [], dict.fromkeys(label_of(row) for row in study.rows if row.block in task_blocks())
    verdicts = {"surely above it": 1, "not told apart": 0, "surely below it": -1}
    for block, name in SETS.items():
        rows = rows_of(study, block)
        for shots in (1, 5):
            free, task = best_of(study, rows, FREE, shots), f"{name}, {shots}-shot"
            columns.append(task)
            heads: dict[int, list[str]] = {1: [], 0: [], -1: []}
            for label in labels:
                if label in FREE:
                    continue
                done = free is not None and (label, shots) in rows
                cell = cell_of(study, rows[label, shots], rows[free, shots]) if done else UNDONE
                width = cell.widths.clips
                points(tables, "frontier-free", label, task, cell)
                if cell.difference is not None and width is not None:
                    heads[int(cell.difference > width) - int(cell.difference < -width)].append(label)
            value = None if free is None else accuracy_of(study, rows[free, shots])
            tables.add(
                "frontier-wins", task, "best free row", value, note=None if free is None else f"({free})"
            )
            for title, sign in verdicts.items():
                names = f"({', '.join(heads[sign])})" if heads[sign] and sign >= 0 else None
                count = len(heads[sign]) if any(heads.values()) else None
                tables.add("frontier-wins", task, title, count, unit="heads", note=names)
    order_rows(tables, "frontier-free")
    tables.start("frontier-free", "method, points above the best free row", columns)
    tables.start("frontier-wins", "task", ["best free row", *verdicts])


def task_blocks() -> list[str]:
    """The blocks that have the heads of the data sets."""
    return [block for name in SETS for block in (name, f"{name}-trained")]


def points(tables: Tables, table: str, row: str, column: str, cell: Cell, note: str | None = None) -> None:
    """Add a difference as a figure of its own, with its interval over clips."""
    width = cell.widths.clips
    tables.add(
        table, row, column, cell.difference, unit="points", interval=rounded(width), note=note,
        interval_over=None if width is None else "clips", episodes=cell.episodes,
    )  # fmt: skip


def order_rows(tables: Tables, name: str) -> None:
    """Bring the figures of a table into the order of its rows, which is that in which they were first named."""
    mine = [figure for figure in tables.figures if figure.table == name]
    rows = list(dict.fromkeys(figure.row for figure in mine))
    others = [figure for figure in tables.figures if figure.table != name]
    tables.figures = [*others, *sorted(mine, key=lambda figure: rows.index(figure.row))]


def auto_table(tables: Tables, study: Study) -> None:
    """The automatic choice of a matching beside the fixed ones."""
    best_title = f"{AUTO} minus the best of them"
    for block, name in {**SETS, "demo-order": "demo, orders"}.items():
        rows = rows_of(study, block)
        for shots in (1, 5):
            task = f"{name}, {shots}-shot"
            for label in (AUTO, *FIXED):
                mine = rows.get((label, shots), [])
                picked = Counter(picked_by(study.metrics(row)["chosen"]) for row in mine if label == AUTO)
                note = f"({', '.join(f'{what} {n}' for what, n in picked.items())})" if picked else None
                tables.add(
                    "frontier-auto", task, label, accuracy_of(study, mine) if mine else None, note=note
                )
            best = best_of(study, rows, FIXED, shots)
            done = best is not None and (AUTO, shots) in rows
            cell = cell_of(study, rows[AUTO, shots], rows[best, shots]) if done else UNDONE
            points(tables, "frontier-auto", task, best_title, cell, f"({best})" if done else None)
    tables.start("frontier-auto", "task", [AUTO, *FIXED, best_title])


def picked_by(chosen: dict[str, Any]) -> str:
    """The matching that base and val classes chose, as a run's metrics have it."""
    return str(chosen["matching"])


def time_tables(tables: Tables, study: Study, machine: str) -> None:
    """The seconds of a run's test, and of its training where it has one, as means over class splits."""
    seconds("frontier-time", "eval_seconds", tables, study, corner=f"method, seconds of a test on {machine}")
    seconds(
        "frontier-training", "train_seconds", tables, study, corner=f"method, seconds of a training on {machine}",
        kept=lambda label: label != BASE, blocks=lambda block: block.endswith("-trained"),
    )  # fmt: skip


def seconds(
    name: str, key: str, tables: Tables, study: Study, *, corner: str,
    kept: Callable[[str], bool] = lambda label: True, blocks: Callable[[str], bool] = lambda block: True,
) -> None:  # fmt: skip
    """A table of seconds under a key of the metrics: a row a head, a column a task.

    kept, blocks: which labels and blocks have rows.
    """
    columns = []
    mine = [row for row in study.rows if row.block in task_blocks() and blocks(row.block)]
    for block, title in SETS.items():
        rows = rows_of(study, block)
        for shots in (1, 5):
            task = f"{title}, {shots}-shot"
            columns.append(task)
            for label in filter(kept, dict.fromkeys(label_of(row) for row in mine)):
                of = [study.metrics(row) for row in rows.get((label, shots), [])]
                value = float(np.mean([each[key] for each in of])) if of else None
                episodes = of[0]["episodes"] if of else None
                tables.add(name, label, task, value, unit="s", episodes=episodes)
    order_rows(tables, name)
    tables.start(name, corner, columns, digits=2)
