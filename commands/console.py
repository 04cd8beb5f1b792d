"""The output of commands: verbosity, progress on standard error, tables and JSON on standard output."""

from __future__ import annotations

import enum
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol


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
    """Print one JSON document on standard output."""
    print(json.dumps(value, indent=2, default=str, allow_nan=False))


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
        table.add_row(*(Text(str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)


class Bar(Protocol):
    def __call__(self, done: int, total: int, text: str = "") -> None: ...


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    """Whether a column holds figures, which are aligned at the right."""
    cells = [str(row[column]) for row in rows if column < len(row) and str(row[column])]
    return bool(cells) and sum(c[0].isdigit() or c[0] in "+-±" for c in cells) * 2 > len(cells)


@contextmanager
def progress(label: str) -> Iterator[Bar]:
    """A callback that shows the progress of one long job on standard error: the share done, the rate, the time left.

    It shows a bar on a terminal, a line at most every ten seconds elsewhere, and nothing with --quiet.
    """
    if _verbosity == Verbosity.QUIET:
        yield lambda done, total, text="": None
    elif sys.stderr.isatty():
        with _rich_bar(label) as bar:
            yield bar
    else:
        yield _Lines(label)


@contextmanager
def phases() -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
    """A callback of runs that shows a bar for each phase (training, evaluation), with the phase's figures."""
    with ExitStack() as stack:
        bars: dict[str, Bar] = {}

        def update(phase: str, done: int, total: int, figures: Mapping[str, float]) -> None:
            if phase not in bars:
                stack.close()
                bars.clear()
                bars[phase] = stack.enter_context(progress(phase))
            bars[phase](done, total, figures_text(figures))

        yield update


@contextmanager
def _rich_bar(label: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    started = time.perf_counter()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(label, total=None, rate="", text="")

        def update(done: int, total: int, text: str = "") -> None:
            rate = done / max(time.perf_counter() - started, 1e-9)
            bars.update(
                task,
                completed=done,
                total=total,
                rate=f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s",
                text=text,
            )

        yield update


class _Lines:
    """A callback that prints progress without a terminal: a line at most every ten seconds."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.started = self.last = time.perf_counter()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        now = time.perf_counter()
        if now - self.last < 10:
            return
        self.last = now
        rate = done / (now - self.started)
        left = (total - done) / max(rate, 1e-9)
        print(
            f"{self.label}: {done}/{total}, {rate:.1f}/s, {left:.0f} s left {text}".rstrip(),
            file=sys.stderr,
            flush=True,
        )


def figures_text(figures: Mapping[str, float]) -> str:
    """The loss and the accuracy on val classes as a text, such as ``loss 1.234  val 0.567``."""
    printed = {k: v for k, v in figures.items() if k in ("loss", "val")}
    return "  ".join(f"{k} {v:.3f}" for k, v in printed.items())
