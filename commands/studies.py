"""The commands of studies, which are runs that are made to be compared: ``fsmm compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .tables import show_comparison


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs (printed by episode-eval).")],
    draws: Annotated[
        bool, typer.Option("--draws", help="Compare over episode draws of this test set as well.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare runs in pairs on the episodes that they share: differences, intervals and p-values (Holm-corrected).

    The intervals say how far the difference would vary with other clips of these classes, and with other classes.
    """
    from ..studies.compare import compare as run_compare

    found = run_compare(runs, draws=draws)
    if json:
        console.print_json(found.to_dict())
        return
    console.print_table(
        "", ("run", "accuracy"), [(r["name"], f"{100 * r['accuracy']:.2f} %") for r in found.runs]
    )
    show_comparison(found)
