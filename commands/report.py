"""The command ``fsmm report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from . import completion, console
from .cache import Json


def register(app: typer.Typer) -> None:
    app.command("report")(report_command)


def report_command(
    study: Annotated[Path, typer.Argument(help="The folder of a study, or any folder of runs.")],
    out: Annotated[
        Optional[Path], typer.Option(help="The folder of the page and the tables (else STUDY/report).")
    ] = None,
    cache: Annotated[
        Optional[Path],
        typer.Option(help="The cache of the runs, for origins and maps (else the one that each run names)."),
    ] = None,
    maps: Annotated[
        Optional[list[str]],
        typer.Option(
            "--map",
            metavar="pca|tsne|umap",
            help="A map of the features: pca, tsne or umap; repeatable [pca].",
            autocompletion=completion.one_of(("pca", "tsne", "umap")),
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: Json = False,
) -> None:
    """Write a study's report: one HTML page that needs no network, and tables (CSV, parquet, LaTeX, Markdown).

    The page marks the best runs and those not significantly worse, by the paired interval over clips, and the trained
    heads that do not beat the best run without training."""
    from ..studies.report.make import report

    found = report(study, out, cache=cache, maps=tuple(dict.fromkeys(maps or ("pca",))))
    for note in found.notes:
        console.note(note)
    if json:
        console.print_json(
            {
                "page": str(found.page),
                "tables": [str(path) for path in found.tables],
                "sections": found.sections,
                "runs": found.runs,
                "tasks": found.tasks,
                "notes": found.notes,
            }
        )
    else:
        typer.echo(f"The report of {len(found.runs)} runs is {found.page}")
        typer.echo(f"Tables: {', '.join(path.name for path in found.tables)}, beside it.")
    if open_page:
        typer.launch(str(found.page))
