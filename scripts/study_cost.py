"""The expected time of a study as a table of docs/results: the whole, and the ten runs or trainings that take longest.

    fsmm sweep examples/results.yaml --cache CACHE --out results --dry-run --json > plan.json
    python scripts/study_cost.py plan.json && python scripts/results.py

The times are estimates: each kind of run is measured on its first episodes and training steps, or scaled from one of
its method. `--measure SECONDS` measures more of them, and each dry run goes on where the one before it ended.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from figures.data import ROOT, UNKNOWN, Data, Figure, Table, put_tables
from figures.record import commit_of

TABLE, COLUMN, WHOLE = "speed-study", "expected minutes", "the whole study on two cores"
COMMAND = "fsmm sweep examples/results.yaml --cache CACHE --out results --dry-run --json"
MOST = 10
"""The number of runs and trainings that have a row."""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("plan", type=Path, help="what the dry run printed with --json")
    options.add_argument("--command", default=COMMAND, help="the command of the dry run")
    options.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    given = options.parse_args()
    plan = json.loads(given.plan.read_text(encoding="utf-8"))
    commit = commit_of(ROOT, dirty=given.dirty)
    figures = [figure(row, seconds, given.command, commit) for row, seconds in costs(plan).items()]
    figures[0] = replace(figures[0], note=counts(plan))
    table = Table(name=TABLE, corner="what is done", columns=(COLUMN,), digits=1)
    put_tables(ROOT / "docs" / "results" / "speed.json", Data({TABLE: table}, figures))


def costs(plan: Mapping[str, Any]) -> dict[str, float]:
    """The seconds of the whole plan, and of the runs and trainings that take the longest, by the text of a row."""
    waiting = {row["key"]: row for row in plan["rows"] if not row["done"]}
    trained = {row["head"]: row for row in reversed(plan["rows"]) if row["head"]}
    each = {name(row): row["seconds"] for row in waiting.values()}
    each |= {f"the training for {name(trained[head])}": spent for head, spent in plan["heads"].items()}
    longest = sorted(each.items(), key=lambda item: -item[1])[:MOST]
    whole = sum(row["seconds"] for row in waiting.values()) + sum(plan["heads"].values())
    return {WHOLE: max(whole / 2, longest[0][1]), **dict(longest)}


def counts(plan: Mapping[str, Any]) -> str:
    """What the whole plan has to do, in words, and how many of its methods were not measured."""
    runs = {row["key"] for row in plan["rows"] if not row["done"]}
    guessed = plan["methods_not_measured"]
    more = f"; {guessed} methods are not measured" if guessed else ""
    return f"({len(runs):,} runs and {len(plan['heads']):,} trainings{more})"


def name(row: Mapping[str, Any]) -> str:
    """The text by which a person knows a row of the study."""
    return f"{row['block']}: {row['label']}"


def figure(row: str, seconds: float, command: str, commit: str | None) -> Figure:
    """The figure of one row, in minutes."""
    return Figure(
        page="speed",
        table=TABLE,
        row=row,
        column=COLUMN,
        part=None,
        details=None,
        value=round(seconds / 60, 2),
        unit="min",
        interval=None,
        interval_over=None,
        difference=None,
        difference_widths=UNKNOWN,
        episodes=None,
        command=command,
        commit=commit,
        note=None,
        run=None,
    )


if __name__ == "__main__":
    main()
