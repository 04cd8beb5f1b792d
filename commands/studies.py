"""The commands of studies, which are runs that are made to be compared: ``fsmm compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs (printed by episode-eval).")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Compare runs in pairs on the episodes that they share, by difference, interval and p-value (Holm-corrected)."""
    from ..studies.compare import compare as run_compare

    found = run_compare(runs)
    if json:
        console.print_json(found.to_dict())
        return
    console.print_table(
        "", ("run", "accuracy"), [(r["name"], f"{100 * r['accuracy']:.2f} %") for r in found.runs]
    )
    rows = [
        (
            f"{p.first} - {p.second}",
            f"{100 * p.difference:+.2f}",
            f"± {100 * p.ci95:.2f}",
            f"{p.p:.2g}",
            f"{p.p_holm:.2g}",
        )
        for p in found.pairs
    ]
    caption = f"Points of accuracy, paired over {found.episodes:,} episodes; 95 % over episode draws."
    console.print_table("", ("pair", "difference", "interval", "p", "p (Holm)"), rows, caption)
