"""Writes the pages of docs/results/ from the figures in its JSON files and the prose in docs/results/sources/.

    python scripts/results.py                 write every page
    python scripts/results.py --check         exit 1 and name the first page that is not up to date
    python scripts/results.py add RUN --page demo --table demo-events --row "ProtoNet, frame" --column event
    python scripts/results.py demo --home fsmm-demo      compare the runs of `make demo` with the data

Every figure is one row of a JSON file: its value, its interval, the command that gives it and the commit that gave
it. A row without a commit comes from a run whose commit was not recorded. scripts/figures/pages.py says which
placeholders the prose may hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from figures.data import ROOT, read_file
from figures.pages import check, write
from figures.record import add

TOLERANCE = 2.0
"""Points by which an accuracy of the small demo may differ: encoders round differently on other processors."""


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.step == "add":
        add(given)
    elif given.step == "demo":
        compare_demo(given.root, given.home)
    elif given.check:
        check(given.root)
    else:
        write(given.root)


def parser() -> argparse.ArgumentParser:
    """The options of this script."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--root", type=Path, default=ROOT, help="the checkout whose docs/ are meant")
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is stale")
    steps = options.add_subparsers(dest="step")
    adding = steps.add_parser("add", help="record a run as a figure")
    adding.add_argument("run", type=Path, help="a run's folder, with config.json and metrics.json")
    for name in ("--page", "--table", "--row", "--column"):
        adding.add_argument(name, required=True)
    adding.add_argument("--part", help="which figure of a cell that has several")
    adding.add_argument(
        "--minus", type=Path, help="the folder of a run from which the paired difference is recorded"
    )
    adding.add_argument("--details", help="the text of the second label column")
    adding.add_argument("--note")
    adding.add_argument("--metric", default="accuracy", help="the key of metrics.json, a share of one")
    adding.add_argument("--cache", default="CACHE", help="the cache folder that the command names")
    adding.add_argument("--command", help="the command that makes the run (default: from config.json)")
    adding.add_argument("--name", help="of the kept run (default: the table and the run's folder)")
    adding.add_argument("--checkout", type=Path, help="the checkout that made the run (default: this one)")
    adding.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    comparing = steps.add_parser("demo", help="compare the runs of `make demo` with the data")
    comparing.add_argument("--home", type=Path, required=True, help="the demo's folder, with runs/ in it")
    return options


def compare_demo(root: Path, home: Path) -> None:
    """Exit 1 with a sentence if a run of the small demo differs from its recorded figure by more than TOLERANCE."""
    figures = read_file(root / "docs" / "results" / "demo-small.json").figures
    for figure in figures:
        name = f"{figure.row}, {figure.column}"
        row = json.loads(
            (root / "docs" / "results" / "runs" / f"{figure.run}.json").read_text(encoding="utf-8")
        )
        path = home / "runs" / row["folder"] / "metrics.json"
        if not path.is_file():
            sys.exit(f"{name}: there is no run {row['folder']} in {home / 'runs'}.")
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if metrics["episodes"] != figure.episodes:
            sys.exit(
                f"{name}: this run has {metrics['episodes']} episodes, the recorded one {figure.episodes}."
            )
        found = 100 * metrics["accuracy"]
        if figure.value is None or abs(found - figure.value) > TOLERANCE:
            sys.exit(
                f"{name}: this run has {found:.1f} %, the recorded one {figure.value} %; "
                f"they may differ by {TOLERANCE:g} points."
            )
    print(
        f"All {len(figures)} accuracies of the small demo are within {TOLERANCE:g} points of the recorded ones."
    )


if __name__ == "__main__":
    main()
