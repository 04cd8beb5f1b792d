"""The progress of an extraction: the clips done, the encoder's share of the time, and the failures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ...machine.progress import Reporter, reporter

_LINE_SECONDS = 30.0


class Progress:
    """The progress over clips. total: the number of clips to do; shown: the reporter that shows it."""

    def __init__(self, total: int, shown: Reporter) -> None:
        self.total, self.done, self.shown = total, 0, shown

    def advance(self, failed: int, busy: float) -> None:
        """Count one more clip. failed: how many could not be read so far; busy: the encoder's share of the time."""
        self.done += 1
        failures = f", {failed} failed" if failed else ""
        self.shown(self.done, self.total, f"encoder busy {busy:.0%}{failures}")

    def say(self, sentence: str) -> None:
        """Show a sentence on a line of its own."""
        self.shown.say(sentence)


@contextmanager
def clip_progress(total: int) -> Iterator[Progress]:
    """The progress over ``total`` clips, on standard error."""
    with reporter("clips", every=_LINE_SECONDS) as shown:
        yield Progress(total, shown)
