"""The tools that the benchmarks share: medians, rows and the printed table."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Row:
    """A row of a table.

    rate: units a second (median). against: the name of the rate that the ratio refers to. memory_mb: peak, if known.
    """

    name: str
    rate: float
    unit: str = "episodes/s"
    against: str = ""
    ratio: float = float("nan")
    memory_mb: float = float("nan")


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """The median wall time of ``work`` after one warm-up."""
    work()
    seen = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seen.append(time.perf_counter() - started)
    return statistics.median(seen)


def cpu_seconds() -> float:
    """The processor time of this process and of those that it has waited for; other work hardly changes it."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def print_rows(title: str, rows: list[Row]) -> None:
    """Print the table on standard output."""
    from fsmm.commands.console import print_table

    cells = [
        (
            r.name,
            f"{r.rate:,.0f}" if r.rate >= 10 else f"{r.rate:.2f}",
            r.unit,
            "" if r.ratio != r.ratio else f"{r.ratio:.2f}x {r.against}",
            "" if r.memory_mb != r.memory_mb else f"{r.memory_mb:,.0f} MB",
        )
        for r in rows
    ]
    print_table(title, ("", "rate", "unit", "ratio", "peak memory"), cells)
