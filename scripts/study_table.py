"""A table of docs/results from the blocks of a study: a row a head, a column a number of shots.

    python scripts/study_table.py STUDY --block BLOCK --page PAGE --table NAME [--base LABEL] \
        --command "fsmm sweep ..."

STUDY is the folder of a `fsmm sweep`; a block of a study that it includes under a name is called NAME.BLOCK. Several
blocks, such as one a data set, become columns beside one another, named by --name. A cell is the mean over the class
splits and the training seeds of the block. Its difference is that from the row --base on the same episodes, with half
widths over draws, clips and classes in which training seeds count (scripts/figures/paired.py). A table of this name is
replaced. A cell that is not done is a dash.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures.data import ROOT, UNKNOWN, Data, Figure, Table, Widths, put_tables, read_file
from figures.paired import difference_of_rows, mean_difference
from figures.record import commit_of
from figures.text import table_text

from fsmm.studies.grid.store import Row, Study, read_study


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the runs of one row say at one number of shots."""

    value: float | None
    """The mean accuracy, in per cent; None for a cell that is not done, as all else then."""
    difference: float | None
    """The paired difference to the base, in points."""
    widths: Widths
    """The half widths of its 95 % intervals over draws, clips and classes, in points."""
    episodes: int | None
    """The episodes of a run."""


UNDONE = Cell(value=None, difference=None, widths=UNKNOWN, episodes=None)


def main() -> None:
    given = parser().parse_args()
    if len(given.name) not in (0, len(given.block)):
        raise SystemExit("Give as many --name as --block.")
    study = read_study(given.study)
    figures: list[Figure] = []
    columns: list[str] = []
    for number, block in enumerate(given.block):
        prefix = f"{given.name[number]}, " if given.name else ""
        for row, shots, cell in cells_of(study, block, given.base):
            column = f"{prefix}{shots}-shot"
            figures.append(figure(given, row, column, cell))
            columns += [column] if column not in columns else []
    if all(each.value is None for each in figures):
        raise SystemExit(f"No run of {', '.join(given.block)} is done in {given.study}.")
    path = ROOT / "docs" / "results" / f"{given.page}.json"
    rows = list(dict.fromkeys(each.row for each in figures))
    figures.sort(key=lambda each: (rows.index(each.row), columns.index(each.column)))
    table = Table(
        name=given.table,
        corner=given.corner,
        columns=tuple(columns),
        digits=1,
        difference_from=given.base,
    )
    put_tables(path, Data({given.table: table}, figures))
    print(table_text(given.table, read_file(path)))


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("study", type=Path, help="the study's folder")
    options.add_argument("--block", action="append", required=True, help="a block of the study; repeatable")
    options.add_argument(
        "--name", action="append", default=[], help="the text of a block's columns; repeatable"
    )
    options.add_argument("--page", required=True, help="the page, docs/results/PAGE.json")
    options.add_argument("--table", required=True, help="the table's name")
    options.add_argument("--corner", default="method", help="the header of the rows")
    options.add_argument("--base", default="protonet", help="the label of the row from which others differ")
    options.add_argument("--command", required=True, help="the command that makes the study again")
    options.add_argument("--note", help="a mark of every figure")
    return options


def cells_of(study: Study, block: str, base: str) -> list[tuple[str, int, Cell]]:
    """The cells of a block in the order of its rows: label, shots and what the runs say."""
    rows = [row for row in study.rows if row.block == block]
    done = [row for row in study.done if row.block == block]
    found = []
    for label in dict.fromkeys(label_of(row) for row in rows):
        for shots in sorted({shots_of(row) for row in rows}):
            planned = [row for row in rows if (label_of(row), shots_of(row)) == (label, shots)]
            mine = [row for row in done if (label_of(row), shots_of(row)) == (label, shots)]
            others = [row for row in done if (label_of(row), shots_of(row)) == (base, shots)]
            whole = bool(mine) and len(mine) == len(planned)
            cell = cell_of(study, mine, [] if label == base else others) if whole else UNDONE
            found.append((label, shots, cell))
    return found


def cell_of(study: Study, mine: Sequence[Row], base: Sequence[Row]) -> Cell:
    """One cell from the runs of a row over class splits and seeds, beside those of the base."""
    metrics = [study.metrics(row) for row in mine]
    splits = list(dict.fromkeys(split_of(row) for row in mine))
    found = [difference_of_rows(study, of_split(mine, split), of_split(base, split)) for split in splits]
    pairs = [pair for pair in found if pair is not None]
    mean = mean_difference(pairs) if len(pairs) == len(splits) else None
    return Cell(
        value=100 * float(np.mean([each["accuracy"] for each in metrics])),
        difference=None if mean is None else mean.points,
        widths=UNKNOWN if mean is None else mean.widths,
        episodes=metrics[0]["episodes"],
    )


def of_split(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if split_of(row) == split]


def label_of(row: Row) -> str:
    return str(row.varies.get("variant", row.config["method"]))


def shots_of(row: Row) -> int:
    return int(row.config["protocol"]["k_shot"])


def split_of(row: Row) -> str:
    return str(row.config["protocol"]["class_split"])


def figure(given: argparse.Namespace, row: str, column: str, cell: Cell) -> Figure:
    """The accuracy of a cell."""
    return Figure(
        page=given.page,
        table=given.table,
        row=row,
        column=column,
        part=None,
        details=None,
        value=rounded(cell.value),
        unit="%",
        interval=None,
        interval_over=None,
        difference=rounded(cell.difference),
        difference_widths=cell.widths.rounded(3),
        episodes=cell.episodes,
        command=given.command,
        commit=None if cell.value is None else commit_of(ROOT, dirty=False),
        note=given.note,
        run=None,
    )


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


if __name__ == "__main__":
    main()
