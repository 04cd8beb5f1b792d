"""The tables of docs/results/frontier.md, and its figures, from the folders of the studies that they come from.

    python scripts/frontier.py --study frontier --stress ave28=stress-ave28 \
        --stress utd-segments=stress-utd --machine "a server with 64 cores, one thread a run"
    python scripts/frontier.py                 draw the figures again from docs/results/frontier.json

--study is the folder of `fsmm sweep examples/frontier.yaml`, --stress that of `fsmm sweep stress` for a data set. The
folder of `fsmm sweep examples/results.yaml`, which includes all these studies, serves as each of theirs. Each option
replaces its own tables and leaves the others, and so do order certificates where none is done. What else is not done is
a dash. `python scripts/results.py` writes the page anew.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from figures.data import ROOT, Data, put_tables, read_file
from figures.record import commit_of
from figures.study_parts import command_of_part, part_or_exit
from frontier_heads import SWEEP, Tables, head_tables
from frontier_order import SETS as ORDERS
from frontier_order import order_tables
from frontier_stress import PREFIX, draw, stress_tables

from fsmm.studies.grid.store import read_study

STRESSED = ("ave28", "utd-segments", "demo")
"""The data sets whose stress curves the page has."""
PAGE = ROOT / "docs" / "results" / "frontier.json"


def main() -> None:
    given = parser().parse_args()
    if given.study or given.stress:
        tables = Tables(page=PAGE.stem, commit=commit_of(ROOT, dirty=given.dirty))
        if given.study:
            study = read_study(given.study)
            tables.command = command_of_part(study, PAGE.stem, SWEEP)
            part = part_or_exit(study, PAGE.stem)
            head_tables(tables, part, machine=given.machine)
            order_tables(tables, part)
        for name, folder in (text.split("=", 1) for text in given.stress):
            stress_tables(tables, name, Path(folder))
        add_dashes(tables)
        put_tables(PAGE, Data(tables.layouts, tables.figures))
    for path, text in draw(read_file(PAGE)).items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)} is drawn.")


def add_dashes(tables: Tables) -> None:
    """A dash for each table of the page that is neither made now nor was before, so that the page can be written."""
    held = read_file(PAGE).tables if PAGE.exists() else {}
    expected = ["frontier-demo-order", "frontier-zero-shot", *(f"order-{name}" for name in (*ORDERS, "all"))]
    expected += [f"{PREFIX}{name}-{shots}-shot" for name in STRESSED for shots in (1, 5)]
    for name in expected:
        if name not in held and name not in tables.layouts:
            tables.start(name, "", ["result"])
            tables.add(name, "not measured", "result", None)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--study", type=Path, help="the folder of the sweep of examples/frontier.yaml")
    options.add_argument(
        "--stress", action="append", default=[], help="SET=FOLDER of a sweep of the preset stress; repeatable"
    )
    options.add_argument(
        "--machine", default="one machine", help="where the study ran, for the table of times"
    )
    options.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    return options


if __name__ == "__main__":
    main()
