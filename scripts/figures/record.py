"""Recording a run as a figure: its small row under docs/results/runs/, and its figure in the page's JSON file."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .data import UNKNOWN, Data, Figure, read_file, with_figure, write_file
from .run_command import command_of

_PATHS = ("out", "cache")  # The fields of a run that name places on the machine that made it.


def add(given: argparse.Namespace) -> None:
    """Record a run by the options of `scripts/results.py add`. Exits with a sentence if it cannot be recorded."""
    from fsmm.machine.digests import changed_files

    if changed := changed_files(given.run, ["config.json", "metrics.json"]):
        sys.exit(f"{given.run.name}: {' and '.join(changed)} changed after the run ended; run it again.")
    config = json.loads((given.run / "config.json").read_text(encoding="utf-8"))
    metrics = json.loads((given.run / "metrics.json").read_text(encoding="utf-8"))
    if metrics.get(given.metric) is None:
        sys.exit(
            f"{given.run.name}: metrics.json has no {given.metric}; it has {', '.join(sorted(metrics))}."
        )
    commit = commit_of(given.checkout or given.root, dirty=given.dirty)
    command = given.command or command_of(config, given.cache)
    figure = figure_of(given, metrics, command, commit)
    keep_run(
        given.root,
        name=str(figure.run),
        row=small_row(given.run.name, config, metrics, command=command, commit=commit),
    )
    path = given.root / "docs" / "results" / f"{given.page}.json"
    data = read_file(path) if path.is_file() else Data()
    write_file(path, with_figure(data, figure))
    print(
        f"{figure.row}, {figure.column}: {figure.value} % is recorded in {path.name} with {figure.run}.json."
    )


def figure_of(
    given: argparse.Namespace, metrics: Mapping[str, Any], command: str, commit: str | None
) -> Figure:
    """The figure of a run; the interval of an accuracy is over draws, and over clips beside a paired difference."""
    key, over = ("ci95", "draws") if given.minus is None else ("ci95_clips", "clips")
    interval = metrics.get(key) if given.metric == "accuracy" else None
    pair = None
    if given.minus is not None:
        from .paired import difference_of_runs

        pair = difference_of_runs([given.run], [given.minus])
    return Figure(
        page=given.page,
        table=given.table,
        row=given.row,
        column=given.column,
        part=given.part,
        details=given.details,
        value=round(100 * metrics[given.metric], 2),
        unit="%",
        interval=None if interval is None else round(100 * interval, 2),
        interval_over=None if interval is None else over,
        difference=None if pair is None else round(pair.points, 2),
        difference_widths=UNKNOWN if pair is None else pair.widths.rounded(2),
        episodes=metrics.get("episodes"),
        command=command,
        commit=commit,
        note=given.note,
        run=given.name or f"{given.table}-{given.run.name}",
    )


def commit_of(checkout: Path, *, dirty: bool) -> str | None:
    """The commit of a checkout without changes outside docs/results; None for a changed one if ``dirty``.

    Exits with a sentence if the checkout has changes and ``dirty`` is not given.
    """
    if git(checkout, "status", "--porcelain", "--", ".", ":!docs/results", ":!docs/results.md"):
        if not dirty:
            sys.exit(
                "The checkout has uncommitted changes, so no commit made this run; commit, or give --dirty."
            )
        return None
    return git(checkout, "rev-parse", "HEAD")


def git(checkout: Path, *arguments: str) -> str:
    """What git prints. Exits with a sentence if it fails."""
    done = subprocess.run(
        ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"git {shlex.join(arguments)} failed in {checkout}: {done.stderr.strip()}")
    return done.stdout.strip()


def small_row(
    folder: str, config: Mapping[str, Any], metrics: Mapping[str, Any], *, command: str, commit: str | None
) -> dict[str, Any]:
    """A run without its tables by class and episode, and without the paths of the machine that made it."""
    kept = {k: v for k, v in metrics.items() if k not in _PATHS and not k.startswith("per_")}
    asked = {k: v for k, v in config.items() if k not in _PATHS}
    return {"folder": folder, "command": command, "commit": commit, "config": asked, "metrics": kept}


def keep_run(root: Path, name: str, row: Mapping[str, Any]) -> None:
    """Write a small row to docs/results/runs/NAME.json."""
    folder = root / "docs" / "results" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(row, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
