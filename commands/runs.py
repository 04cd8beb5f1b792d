"""The command ``fsmm runs`` and the table that it shares with ``fsmm compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from . import console
from .cache import Cache, Dataset, Json, cache_root


def register(app: typer.Typer) -> None:
    app.command("runs")(runs_command)


def runs_command(
    folders: Annotated[
        Optional[list[Path]], typer.Argument(help="Folders of runs, made with --out [those of the cache].")
    ] = None,
    cache: Cache = None,
    dataset: Dataset = None,
    json: Json = False,
) -> None:
    """List runs: method, modalities, shots, settings that are not the default, and accuracy.

    `fsmm compare` takes the names, or as much of their beginning or end as only one run has."""
    from ..runs.listing import list_runs

    found = list_runs(cache_root(cache), dataset, folders)
    if json:
        console.print_json([run.to_dict() for run in found])
        return
    if not found:
        console.note(
            "There are no runs here yet; `fsmm episode-eval` makes one, and --out FOLDER puts it elsewhere."
        )
    whole = [run.to_dict() for run in found if not run.fault]
    if whole:
        show_listed(whole)
    for run in found:
        if run.fault:
            typer.echo(f"{run.name}: {run.fault}")
    without = [run.name for run in found if not run.fault and not run.digests]
    if without:
        console.note(
            f"{len(without)} runs have no digests, so that damage could not be seen: {', '.join(without[:5])}."
        )


def show_listed(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print described runs as a table, one row for each."""
    rows = [
        (
            run["name"],
            f"{run['dataset']} {run['split']}" + (f" ({run['label_set']})" if run["label_set"] else ""),
            run["method"],
            "+".join(run["modalities"]),
            run["task"],
            " ".join(f"{key}={value}" for key, value in run["settings"].items()),
            f"{100 * run['accuracy']:.2f} %",
            "-" if run["ci95_clips"] is None else f"± {100 * run['ci95_clips']:.2f}",
            f"{run['episodes']:,}",
        )
        for run in runs
    ]
    columns = (
        "run",
        "data",
        "method",
        "modalities",
        "task",
        "not default",
        "accuracy",
        "(clips)",
        "episodes",
    )
    console.print_table("", columns, rows)
