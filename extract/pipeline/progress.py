"""The progress of an extraction on standard error: a bar on a terminal, else a line now and then, or nothing."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

_LINE_SECONDS = 30.0


class Progress:
    """Silent progress, a context manager around the work, and the base of the classes that show something.

    total: the number of clips to do.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.began = time.monotonic()

    def advance(self, failed: int, busy: float) -> None:
        """Count one more clip. failed: how many could not be read so far; busy: the encoder's share of the time."""
        self.done += 1

    @property
    def rate(self) -> float:
        """Clips a second since the start."""
        return self.done / max(time.monotonic() - self.began, 1e-9)

    def say(self, text: str) -> None:
        """Show a sentence on a line of its own."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class Lines(Progress):
    """Progress for logs: a line every ``every`` seconds."""

    def __init__(self, total: int, every: float = _LINE_SECONDS) -> None:
        super().__init__(total)
        self.every = every
        self._said = self.began

    def advance(self, failed: int, busy: float) -> None:
        super().advance(failed, busy)
        now = time.monotonic()
        if now - self._said >= self.every:
            self._said = now
            left = (self.total - self.done) / self.rate
            self.say(
                f"{self.done} of {self.total} clips, {self.rate:.1f} a second, {_clock(left)} left, "
                f"encoder busy {busy:.0%}, {failed} failed"
            )

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Bar(Progress):
    """A progress bar with rate, time left, the encoder's share of the time and the failures."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self._bar = _rich_bar()
        self._task = self._bar.add_task("", total=total, rate="", busy="", failed="")

    def advance(self, failed: int, busy: float) -> None:
        super().advance(failed, busy)
        failures = f"{failed} failed" if failed else ""
        self._bar.update(
            self._task, advance=1, rate=f"{self.rate:.1f}/s", busy=f"encoder {busy:.0%}", failed=failures
        )

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()


def _rich_bar() -> rich.progress.Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = [TextColumn(f"{{task.fields[{name}]}}") for name in ("rate", "busy", "failed")]
    return RichProgress(
        TextColumn("clips"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *columns,
        console=Console(stderr=True),
    )


def make_progress(total: int, quiet: bool) -> Progress:
    """The kind of progress that suits standard error."""
    if quiet:
        return Progress(total)
    return Bar(total) if sys.stderr.isatty() and total else Lines(total)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"
