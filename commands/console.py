"""The output of commands: verbosity, progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import enum
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ..machine.json_text import json_text
from ..machine.progress import Reporter, reporter
from ..machine.texts import printable


class Verbosity(enum.IntEnum):
    QUIET = 0
    NORMAL = 1
    VERBOSE = 2


_verbosity = Verbosity.NORMAL


def set_verbosity(value: Verbosity) -> None:
    global _verbosity
    _verbosity = value


def verbosity() -> Verbosity:
    return _verbosity


def note(sentence: str) -> None:
    """Print a line on standard error, unless --quiet was given."""
    if _verbosity > Verbosity.QUIET:
        print(sentence, file=sys.stderr, flush=True)


def detail(sentence: str) -> None:
    """Print a line on standard error where --verbose was given."""
    if _verbosity >= Verbosity.VERBOSE:
        print(sentence, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output; a figure that is not finite is null in it."""
    print(json_text(value, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table on standard output, at most 160 columns wide where standard output is not a terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title or None,
        caption=caption or None,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
    )
    for i, column in enumerate(columns):
        table.add_column(
            column, justify="right" if i and _numeric(rows, i) else "left", no_wrap=i == 0, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(printable(str(cell))) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column holds figures, which are aligned at the right."""
    cells = [str(row[column]) for row in rows if column < len(row) and str(row[column])]
    return bool(cells) and sum(c[0].isdigit() or c[0] in "+-±" for c in cells) * 2 > len(cells)


def print_row(cells: Sequence[str]) -> None:
    """Print cells, divided by tabs, as one line on standard output, for other programs to read."""
    print("\t".join(map(printable, cells)).rstrip())


@contextmanager
def progress(label: str) -> Iterator[Reporter]:
    """A callback that shows the progress of one long job on standard error: the share done, the rate, the time left.

    It shows a bar on a terminal, a line at most every ten seconds elsewhere, and nothing with --quiet.
    """
    with reporter(label, silent=_verbosity == Verbosity.QUIET) as shown:
        yield shown


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
    """A callback of runs that shows a bar for each phase (training, evaluation), with the phase's figures."""
    with ExitStack() as stack:
        shown: dict[str, Reporter] = {}

        def update(phase: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if phase not in shown:
                stack.close()
                shown.clear()
                shown[phase] = stack.enter_context(progress(phase))
            shown[phase](done, total, figures_text(figures))

        yield update


def figures_text(figures: Mapping[str, float]) -> str:
    """The loss and the accuracy on val classes, where there are any, as a text such as ``loss 1.234  val 0.567``."""
    printed = {k: v for k, v in figures.items() if k in ("loss", "val") and math.isfinite(v)}
    return "  ".join(f"{k} {v:.3f}" for k, v in printed.items())
