"""The progress of one run among several."""

from __future__ import annotations

from collections.abc import Mapping

from ..runs.spec import Progress


def numbered(progress: Progress | None, number: int, runs: int) -> Progress | None:
    """A callback for run ``number`` of ``runs``, which reports to ``progress`` with phases such as "run 3 of 8: train".

    >>> tell = numbered(lambda phase, done, total, figures: print(phase, done, total), 3, 8)
    >>> tell("train", 20, 100, {})
    run 3 of 8: train 20 100
    """
    if progress is None:
        return None

    def report(phase: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        progress(f"run {number} of {runs}: {phase}", done, total, figures)

    return report
