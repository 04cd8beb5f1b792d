"""The progress of long work on standard error: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from .foreign_lines import terminal_alone
from .pace import Pace, clock_text, rate_text

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_SECONDS = 10.0
"""The seconds that pass at least between two lines where there is no terminal."""
_silent: ContextVar[bool] = ContextVar("silent", default=False)


class Reporter:
    """The progress of one phase, which shows nothing; the classes derived from it show something.

    It is called with the number of units done, the number in all, and a text about the latest state.
    """

    def __call__(self, done: int, total: int, text: str = "") -> None:
        """Show that ``done`` units of ``total`` are done."""

    def say(self, sentence: str) -> None:
        """Show a sentence on a line of its own."""


class Lines(Reporter):
    """Progress for logs, as a line every ``every`` seconds.

    label: the name of the phase. The first line comes when that time has passed.
    """

    def __init__(self, label: str, every: float = LINE_SECONDS) -> None:
        self.label, self.every = label, every
        self.pace = Pace()
        self._said = time.monotonic()

    def __call__(self, done: int, total: int, text: str = "") -> None:
        self.pace.report(done)
        now = time.monotonic()
        if now - self._said < self.every:
            return
        self._said = now
        known = [rate_text(self.pace.rate), f"{clock_text(self.pace.seconds_left(total))} left", text]
        self.say(f"{self.label}: {done:,} of {total:,}, {', '.join(filter(None, known))}")

    def say(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)


class Bar(Reporter):
    """Progress as a bar with the units done, the rate, the time left and a text.

    label: the name of the phase. bars: the terminal's bars, of which this is the only one.
    """

    def __init__(self, label: str, bars: Progress) -> None:
        self.bars, self.pace = bars, Pace()
        self._task = bars.add_task(label, total=None, rate="", left="", text="")

    def __call__(self, done: int, total: int, text: str = "") -> None:
        self.pace.report(done)
        left = clock_text(self.pace.seconds_left(total))
        rate = rate_text(self.pace.rate)
        self.bars.update(self._task, completed=done, total=total, rate=rate, left=left, text=text)

    def say(self, sentence: str) -> None:
        self.bars.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def reporter(label: str, *, every: float = LINE_SECONDS, silent: bool = False) -> Iterator[Reporter]:
    """The reporter of a phase that suits standard error; it shows nothing where ``silent``, and within ``silence``.

    label: the name of the phase. every: the seconds between two lines where there is no terminal. While a bar is on the
    terminal, the lines that anything else prints appear above it.
    """
    if silent or _silent.get():
        yield Reporter()
    elif sys.stderr.isatty():
        with _bar(label) as bar:
            yield bar
    else:
        yield Lines(label, every)


@contextmanager
def silence(*, wanted: bool = True) -> Iterator[None]:
    """No progress is shown within the block, if that is wanted."""
    token = _silent.set(_silent.get() or wanted)
    try:
        yield
    finally:
        _silent.reset(token)


@contextmanager
def _bar(label: str) -> Iterator[Bar]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    shown: list[Bar] = []
    with terminal_alone(lambda line: shown[0].say(line)) as terminal:
        texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("rate", "left", "text")]
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), *texts)
        bars = Progress(
            *columns,
            console=Console(file=terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        shown.append(Bar(label, bars))
        with bars:
            yield shown[0]
