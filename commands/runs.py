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
    details: Annotated[
        bool, typer.Option("--details", help="Also what each choice of a run was made on.")
    ] = False,
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
    for listed in whole if details else ():
        show_choices(listed)
    for run in found:
        if run.fault:
            typer.echo(f"{run.name}: {run.fault}")
    without = [run.name for run in found if not run.fault and not run.digests]
    if without:
        console.note(
            f"{len(without)} runs have no digests, so that damage could not be seen: {', '.join(without[:5])}."
        )


def show_choices(run: Mapping[str, Any]) -> None:
    """Print what each choice of a described run was made on."""
    rows = [(c["what"], _value(c["value"]), c["on"]) for c in run["choices"]]
    if rows:
        console.print_table(f"{run['name']}: what was chosen", ("", "value", "made on"), rows)
    else:
        console.note(f"{run['name']} does not say what its choices were made on; an older release made it.")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_listed(runs: Sequence[Mapping[str, Any]]) -> None:
    """Print described runs as a table, one row for each; those of a comparison begin with what needs no training."""
    compared = any("free" in run for run in runs)
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
            *((_mark(run),) if compared else ()),
            f"{run['episodes']:,}",
        )
        for run in sorted(runs, key=lambda run: not run.get("free"))
    ]
    columns = (
        *("run", "data", "method", "modalities", "task", "not default", "accuracy", "(clips)"),
        *(("mark",) if compared else ()),
        "episodes",
    )
    console.print_table("", columns, rows, _MARKS if compared else "")


_MARKS = (
    "free: needs no training. not above free: a trained head that does not beat the best free run on its modalities, "
    "by the paired interval over clips."
)


def _mark(run: Mapping[str, Any]) -> str:
    """The mark of a compared run."""
    if run["free"]:
        return "free"
    return "not above free" if run.get("beats_free") is False else ""
