"""The output of commands: verbosity, progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import enum
import math
import shutil
import sys
import textwrap
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
_WORD = 20
"""The letters of the longest word that a table never cuts."""


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
    """Print a table on standard output, as wide as the terminal; at most 160 characters where there is none.

    Where columns would be so narrow that words were cut, each row is a paragraph instead: its first cell, and below it
    the others behind the names of their columns.
    """
    width = _width()
    if not _fits(columns, rows, width):
        _print_paragraphs(title, columns, rows, caption=caption, width=width)
        return
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
    Console(width=width, highlight=False).print(table)


def print_prose(text: str) -> None:
    """Print paragraphs on standard output, in lines no longer than the terminal is wide; indented ones as they are."""
    width = min(_width(), 120)
    paragraphs = text.split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        lines = paragraph.splitlines()
        filled = lines if any(line[:1].isspace() for line in lines) else textwrap.wrap(paragraph, width)
        print("\n".join(filled), end="\n\n" if i < len(paragraphs) - 1 else "\n")


def _width() -> int:
    """The width of the terminal; 160 characters where standard output is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 160


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether a table of this width cuts no word of up to 20 letters; the first column is never wrapped."""
    if len(columns) <= 2:
        return True
    needed = 1
    for i, column in enumerate(columns):
        cells = [column, *(str(row[i]) for row in rows if i < len(row))]
        words = (min(len(word), _WORD) for cell in cells for word in cell.split())
        needed += 3 + (max(words, default=0) if i else max(map(len, cells)))
    return needed <= width


def _print_paragraphs(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, width: int
) -> None:
    """Print the rows of a table as paragraphs of lines of this width."""
    indent = "    "
    if title:
        print(title)
    for first, *others in rows:
        named = zip(columns[1:], (" ".join(printable(str(cell)).split()) for cell in others))
        text = "; ".join(f"{column}: {cell}" if column else cell for column, cell in named if cell)
        print(printable(str(first)))
        for line in textwrap.wrap(text, max(width, 2 * len(indent)) - len(indent), break_on_hyphens=False):
            print(f"{indent}{line}")
    if caption:
        print("\n".join(textwrap.wrap(caption, width)))


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
