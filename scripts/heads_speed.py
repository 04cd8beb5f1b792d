"""Measures heads by benchmarks/heads.py and records their rates in docs/results/speed.json.

    python scripts/heads_speed.py tim hyrsm hyrsmpp trx strm eckpn     on cores with nothing beside
    python scripts/heads_speed.py chamfer:matching=mean                a method with settings is a row of its own
    python scripts/heads_speed.py slow                                 print what README says of slow heads

`python scripts/results.py` writes the page anew. A checkout with changes is refused: its commit made no figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from figures.data import UNKNOWN, Data, Figure, read_file, with_figure, write_file
from figures.record import commit_of

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "results" / "speed.json"
TABLE, OURS = "speed-heads", "ours, episodes/s"
EPISODES, SLOW = 10_000, 6.0
"""The episodes of an evaluation, and the seconds from which README calls a head slow."""


def main(methods: list[str]) -> None:
    if methods == ["slow"]:
        print(slow_heads(read_file(DATA)))
        return
    from fsmm.benchmarks.heads import alone

    commit = commit_of(ROOT, dirty=False)
    for method in methods:
        data = read_file(DATA)
        for figure in figures_of(method, alone("measure", method), data, commit):
            data = with_figure(data, figure)
            print(method, figure.column, figure.value, flush=True)
        write_file(DATA, data)
    print(slow_heads(read_file(DATA)))


def figures_of(method: str, found: dict[str, float], data: Data, commit: str | None) -> list[Figure]:
    """The figures of a method's rates. found: what ``fsmm.benchmarks.heads.measure`` gives."""
    values = {
        "one at a time, episodes/s": (found["one"], "episodes/s"),
        OURS: (found["batched"], "episodes/s"),
        "times": (found["batched"] / found["one"], "x"),
        "peak memory, MB": (found["memory"], "MB"),
    }
    if "train_one" in found:
        values["training, tasks/s"] = (found["train_batched"], "tasks/s")
        values["training, times"] = (found["train_batched"] / found["train_one"], "x")
    return [
        Figure(
            page="speed",
            table=TABLE,
            row=method,
            column=column,
            part=None,
            details=None,
            value=round(value) if value >= 10 else round(value, 2),
            unit=unit,
            interval=None,
            interval_over=None,
            difference=None,
            difference_widths=UNKNOWN,
            episodes=None,
            command=f"python -m benchmarks.heads {method}",
            commit=commit,
            note=None,
            run=None,
        )
        for column, (value, unit) in values.items()
    ]


def slow_heads(data: Data) -> str:
    """How many heads were timed and are quick, and those that need some seconds, slowest first, as README says it.

    Rows of a method with settings are not counted; the mark of a row follows its seconds.
    """
    timed = [f for f in data.figures if (f.table, f.column) == (TABLE, OURS) and ":" not in f.row]
    rates = {f.row: f.value for f in timed if f.value}
    seconds = {method: EPISODES / rate for method, rate in rates.items()}
    slow = sorted((m for m in seconds if seconds[m] >= SLOW), key=lambda m: -seconds[m])
    quick = sum(value < 2 for value in seconds.values())
    marks = {f.row: f.note or "" for f in timed}
    named = ", ".join(f"{method} {seconds[method]:.0f}{marks[method]}" for method in slow)
    return f"of the {len(seconds)} methods that were timed, {quick} need less than two seconds\n{named}"


if __name__ == "__main__":
    main(sys.argv[1:])
