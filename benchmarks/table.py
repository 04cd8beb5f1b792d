"""What the benchmarks share: medians, rows and one printed table."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Row:
    """name; rate: units a second (median); unit; against: what the ratio is to; ratio; memory_mb (peak, if known)."""

    name: str
    rate: float
    unit: str = "episodes/s"
    against: str = ""
    ratio: float = float("nan")
    memory_mb: float = float("nan")


def median_seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of ``work`` after one warm-up."""
    work()
    seen = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seen.append(time.perf_counter() - started)
    return statistics.median(seen)


def print_rows(title: str, rows: list[Row]) -> None:
    """The table on standard output."""
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
