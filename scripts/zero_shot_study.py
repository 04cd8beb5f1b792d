"""Tables of docs/results/zero-shot.md: zero-shot on drawn class splits of AVE-28, and words by position.

    python scripts/zero_shot_study.py zero-shot --record             the tables of splits, base classes and steps
    python scripts/zero_shot_study.py --words-by-position CACHE      whose words a class gets, a made example

The folder is that of `fsmm sweep examples/zero_shot.yaml`, or of the sweep of examples/results.yaml, which includes
it. Without --record, the script says how far its figures lie from those that are recorded. A figure is the mean over
the draws of class splits; its interval, and that of the difference from ridge-words on the same draws, are over these.
A figure whose runs are not all done stays as it was. `python scripts/results.py` then writes the page.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from figures.data import ROOT, UNKNOWN, Data, Figure, Table, Widths, read_file, write_file
from figures.record import commit_of
from figures.study_parts import ONE, part_or_exit

from fsmm.cache.bank import FeatureBank
from fsmm.cache.class_draw import ClassDraw
from fsmm.runs.statistics import draw_uncertainty
from fsmm.studies.grid.store import Row, Study, read_study

PAGE = ROOT / "docs" / "results" / "zero-shot.json"
NAME, BASE = "zero-shot", "ridge-words"
COMMAND = f"fsmm sweep examples/{ONE}.yaml --cache CACHE --out {ONE} --only {NAME}"
TABLES = {
    "splits": Table(
        name="zero-shot-splits", corner="method", columns=("accuracy",), digits=1, difference_from=BASE
    ),
    "classes": Table(name="zero-shot-classes", corner="method", columns=("5", "10", "15", "20"), digits=1),
    "steps": Table(
        name="zero-shot-learning",
        corner="head; asked about",
        columns=("30 steps", "100 steps", "300 steps"),
        digits=1,
    ),
}
"""The table that each block of the study makes; the block classes-trained makes that of classes, too."""
ASKED = {"held-out clips of base classes": "seen_alone", "unseen classes": "unseen_alone"}
"""The keys of a run's figures by what the table of steps asks about."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What a figure is made of."""

    block: str
    """The block of its runs."""
    table: str
    row: str
    column: str
    key: str
    """The key of each run's figures that it is the mean of."""
    runs: Sequence[Row]
    """Its runs, one a draw."""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("study", type=Path, nargs="?", help="the study's folder")
    options.add_argument("--record", action="store_true", help="write the figures into docs/results")
    options.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    options.add_argument("--words-by-position", type=Path, metavar="CACHE", help="make that table instead")
    given = options.parse_args()
    if (given.study is None) == (given.words_by_position is None):
        options.error("give the folder of a study, or --words-by-position CACHE")
    if given.words_by_position is not None:
        tables, figures = [POSITION], position(given.words_by_position)
    else:
        study = part_or_exit(read_study(given.study), NAME)
        tables, figures = [*TABLES.values()], figures_of(study)
        report(figures, read_file(PAGE))
    if given.record or given.words_by_position:
        commit = commit_of(ROOT, dirty=given.dirty)
        replace_figures(PAGE, tables, [replace(each, commit=commit) for each in figures])


# Runs of the study


def figures_of(study: Study) -> list[Figure]:
    """The figures whose runs are all done."""
    done = {row.key for row in study.done}
    found = []
    base = {draw_of(row): row for row in study.rows if row.block == "splits" and label_of(row) == BASE}
    for cell in cells_of(study):
        rows, pair = list(cell.runs), None
        if cell.block == "splits" and cell.row != BASE:
            others = [base[draw_of(row)] for row in rows]
            rows, pair = [*rows, *others], others
        if done.issuperset(row.key for row in rows):
            found.append(figure_of(study, cell, pair))
    return found


def cells_of(study: Study) -> Iterator[Cell]:
    """The figures that the study's runs make, in the order of its file."""
    runs: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in study.rows:
        block = row.block.removesuffix("-trained")
        if block == "steps":
            for asked, key in ASKED.items():
                place = (
                    row.block,
                    f"{label_of(row)}; {asked}",
                    f"{row.varies['settings.train.steps']} steps",
                )
                runs.setdefault((*place, key), []).append(row)
        else:
            column = "accuracy" if block == "splits" else base_classes(row)
            runs.setdefault((row.block, label_of(row), column, "accuracy"), []).append(row)
    for (block, label, column, key), rows in runs.items():
        table = TABLES[block.removesuffix("-trained")].name
        yield Cell(block=block, table=table, row=label, column=column, key=key, runs=rows)


def label_of(row: Row) -> str:
    return str(row.varies["variant"])


def draw_of(row: Row) -> str:
    return str(row.config["protocol"]["class_split"])


def base_classes(row: Row) -> str:
    """The number of base classes of a run; without a limit there are 20 beside the 8 unseen ones."""
    limit = ClassDraw.parse(draw_of(row)).base
    return "20" if limit is None else str(limit)


def figure_of(study: Study, cell: Cell, base: Sequence[Row] | None) -> Figure:
    """The figure of a cell; base: the runs from which its difference is, draw by draw."""
    values = np.array([study.metrics(row)[cell.key] for row in cell.runs])
    difference, widths = None, UNKNOWN
    if base is not None:
        gap = values - np.array([study.metrics(row)[cell.key] for row in base])
        difference = round(100 * float(gap.mean()), 2)
        widths = Widths(classes=100 * draw_uncertainty(gap).half_width()).rounded(2)
    return Figure(
        page=PAGE.stem,
        table=cell.table,
        row=cell.row,
        column=cell.column,
        part=None,
        details=None,
        value=round(100 * float(values.mean()), 2),
        unit="%",
        interval=round(100 * float(draw_uncertainty(values).half_width()), 2),
        interval_over="classes",
        difference=difference,
        difference_widths=widths,
        episodes=len(values),
        command=f"{COMMAND}.{cell.block}",
        commit=None,
        note=None,
        run=None,
    )


def report(figures: Sequence[Figure], recorded: Data) -> None:
    """Print how far figures lie from the recorded ones."""
    held = {figure.place: figure.value for figure in recorded.figures}
    for table in TABLES.values():
        mine = [figure for figure in figures if figure.table == table.name]
        of = sum(figure.table == table.name for figure in recorded.figures)
        apart = [
            (abs(mean - value), figure)
            for figure in mine
            if (value := held.get(figure.place)) is not None and (mean := figure.value) is not None
        ]
        text = f"{table.name}: {len(mine)} figures are done, {of} recorded"
        if apart:
            most, figure = max(apart, key=lambda pair: pair[0])
            text += f"; the largest change is {most:.2f} points ({figure.row}, {figure.column})"
        print(text)


def replace_figures(path: Path, tables: Sequence[Table], figures: Sequence[Figure]) -> None:
    """Replace figures in a file; those that were not made this time stay as they are."""
    data = read_file(path) if path.is_file() else Data()
    data.tables.update({table.name: table for table in tables})
    fresh = {figure.place: figure for figure in figures}
    kept = [fresh.pop(figure.place, figure) for figure in data.figures]
    write_file(path, Data(data.tables, [*kept, *fresh.values()]))


# Whose words a class gets

POSITION = Table(name="words-by-position", corner="class words", columns=("accuracy",), digits=1)
EVALUATED = (
    "--dataset ave28 --method avca --class-split s0 --modalities frame,audio --n-way 0 --k-shot 0 "
    "--set train.steps=60 --set train.evaluate_every=30"
)


def position(cache: Path) -> list[Figure]:
    """AVE-28 with one class published under another name: zero-shot by name and by position."""
    names = sorted(FeatureBank.load(cache, ["audio"], "all", dataset="ave28").class_names)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "names.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["original", "manual"])
            writer.writerows([[name, "zz" if name == names[0] else name] for name in names])
        for row, added in (
            ("by name", []),
            ("by position", ["--set", "words_by=position", "--set", f"word_names={path}"]),
        ):
            command = [sys.executable, "-m", "fsmm", "-q", "episode-eval", *EVALUATED.split(), *added]
            command += ["--cache", str(cache), "--out", str(Path(folder) / row.replace(" ", "-")), "--json"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            print(row, found["accuracy"], found["notes"], flush=True)
            figures.append(position_figure(row, found["accuracy"]))
    return figures


def position_figure(row: str, accuracy: float) -> Figure:
    """The figure of one way of finding a class's words."""
    return Figure(
        page=PAGE.stem,
        table=POSITION.name,
        row=row,
        column="accuracy",
        part=None,
        details=None,
        value=round(100 * accuracy, 2),
        unit="%",
        interval=None,
        interval_over=None,
        difference=None,
        difference_widths=UNKNOWN,
        episodes=None,
        command="python scripts/zero_shot_study.py --words-by-position CACHE",
        commit=None,
        note=None,
        run=None,
    )


if __name__ == "__main__":
    main()
