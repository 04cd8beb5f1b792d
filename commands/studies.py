"""The commands of studies, which are runs that are made to be compared: ``fsmm compare``."""

from __future__ import annotations

from typing import Annotated

import typer

from . import completion, console
from .cache import Cache, Dataset, Json, cache_root
from .runs import show_listed
from .tables import show_comparison


def register(app: typer.Typer) -> None:
    app.command("compare")(compare)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs or studies, or names of `fsmm runs` (a beginning or end is enough).",
            autocompletion=completion.held_runs,
        ),
    ],
    cache: Cache = None,
    dataset: Dataset = None,
    draws: Annotated[
        bool, typer.Option("--draws", help="Compare over episode draws of this test set as well.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare runs in pairs on the episodes that they share: differences, intervals and p-values (Holm-corrected).

    The intervals say how far the difference would vary with other clips of these classes, and with other classes. Runs
    on different episodes are compared in groups; a run on episodes of its own is named with the reason.
    """
    from ..runs.listing import chosen_runs
    from ..studies.groups import compare_groups

    found = compare_groups(chosen_runs(runs, cache_root(cache), dataset), draws=draws)
    if json:
        console.print_json(found.to_dict())
        return
    for comparison in found.comparisons:
        show_listed(comparison.runs)
        show_comparison(comparison)
    for run in found.left_out:
        console.note(run.reason)
