"""Print the Markdown tables of docs/results/: methods by modalities and shots on the same episodes, beside ProtoNet.

    python scripts/tables.py --dataset ave28 --cache CACHE --methods protonet,eckpn --shots 1,5 --class-splits s0,s1,s2

Runs that lie complete in --out are read instead of run again, so that an interrupted table continues. The interval of a
difference is over clips. With --record TABLE, each cell that this table of docs/results/ has is written to its data.
The tables of docs/results/ have equal weights of modalities (--set fusion.weights=equal).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import results

from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError
from fsmm.heads.registry import METHODS, find
from fsmm.runs.redraw import can_redraw
from fsmm.runs.run import episode_eval
from fsmm.runs.store import load_run
from fsmm.studies.compare import compare


@dataclass
class Cell:
    """The mean accuracy and difference to ProtoNet over class splits (both in points), and the seconds of training."""

    accuracy: float
    difference: float
    error: float | None
    """The half width of the difference over clips; None where a class split has none."""
    seconds: float


def main() -> None:
    given = arguments()
    methods = list(METHODS) if given.methods == "all" else given.methods.split(",")
    columns = [(m, k) for k in given.shots for m in given.modalities]
    print(f"| method | {' | '.join(f'{m}, {k}-shot' for m, k in columns)} | training s |")
    print(f"| --- |{' --- |' * (len(columns) + 1)}", flush=True)
    for method in methods:
        cells = [cell(given, method, m, k) for m, k in columns]
        if given.record:
            record(given, method, {column: c for column, c in zip(columns, cells) if c})
        seconds = max((c.seconds for c in cells if c), default=0.0)
        print(f"| {method} | {' | '.join(text(c, method) for c in cells)} | {seconds:.0f} |", flush=True)


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dataset", required=True)
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--out", type=Path, default=Path("runs/tables"))
    options.add_argument("--methods", default="all", help="comma separated; all of the table by default")
    options.add_argument(
        "--modalities", type=lambda t: t.split(","), default=["frame", "audio", "frame+audio"]
    )
    options.add_argument("--shots", type=lambda t: [int(k) for k in t.split(",")], default=[1, 5])
    options.add_argument("--class-splits", type=lambda t: t.split(","), default=["default"])
    options.add_argument("--label-set", default=None)
    options.add_argument("--episodes", type=int, default=10_000)
    options.add_argument("--queries", type=int, default=15)
    options.add_argument(
        "--set", action="append", default=[], help="key=value for every method, METHOD:key=value for one"
    )
    options.add_argument("--record", help="the name of a table of docs/results/ whose cells are replaced")
    options.add_argument("--page", help="the page of that table (default: the data set)")
    return options.parse_args()


def cell(given: argparse.Namespace, method: str, modalities: str, shots: int) -> Cell | None:
    """The cell of one method on one set of modalities; None if the method does not take them."""
    names = modalities.split("+")
    if find(method)[0].modalities == "two" and len(names) < 2:
        return None
    accuracy, differences, errors, seconds = [], [], [], 0.0
    for split in given.class_splits:
        folder, spent = run(given, method, names, shots=shots, split=split)
        base, _ = run(given, "protonet", names, shots=shots, split=split)
        found = compare([folder, base])
        accuracy.append(found.runs[0]["accuracy"])
        differences.append(found.pairs[0].difference)
        clips = found.pairs[0].clips
        # Heads that decide every query alike have a bound, and no interval.
        errors.append(None if clips is None or clips.one_sided else clips.ci95)
        seconds += spent
    known = [error for error in errors if error is not None]
    return Cell(
        accuracy=100 * float(np.mean(accuracy)),
        difference=100 * float(np.mean(differences)),
        # Class splits share clips. The mean half width is that of the mean difference if they share all of them.
        error=100 * float(np.mean(known)) if len(known) == len(errors) else None,
        seconds=seconds / len(given.class_splits),
    )


def run(
    given: argparse.Namespace, method: str, names: list[str], *, shots: int, split: str
) -> tuple[Path, float]:
    """The folder and the training seconds of one run, which is not run again where its folder is complete."""
    folder = (
        given.out
        / given.dataset
        / f"{method}-{'+'.join(names)}-{shots}-{split}-{given.label_set or 'default'}"
    )
    with suppress(FsmmError):  # A run that is incomplete or damaged is run again.
        _, metrics, arrays = load_run(folder)
        if len(arrays["accuracy"]) == given.episodes and can_redraw(arrays):
            return folder, metrics.get("trained_seconds", metrics["train_seconds"])
    protocol = Protocol(k_shot=shots, n_query=given.queries, class_split=split, label_set=given.label_set)
    started = time.perf_counter()
    try:
        found = episode_eval(
            method,
            given.dataset,
            given.cache,
            protocol=protocol,
            episodes=given.episodes,
            modalities=names,
            settings=settings_of(method, given.set),
            out=folder,
        )
    except FsmmError as error:
        sys.exit(f"{method} {names} {shots}-shot {split}: {error}")
    print(
        f"{method} {names} {shots} {split}: {100 * found.mean:.2f} in {time.perf_counter() - started:.0f} s",
        json.dumps(found.metrics["training"] and found.metrics["training"]["best_step"]),
        file=sys.stderr,
        flush=True,
    )
    return folder, found.metrics["train_seconds"]


def settings_of(method: str, texts: list[str]) -> dict[str, str]:
    """The settings of a method, of texts that are for every method or, with its name and a colon, for one."""
    own = [text.removeprefix(f"{method}:") for text in texts]
    return dict(text.split("=", 1) for text in own if ":" not in text.partition("=")[0])


def record(given: argparse.Namespace, method: str, cells: dict[tuple[str, int], Cell]) -> None:
    """Replace the figures of a method in the data of a table, where the table has them."""
    path = results.ROOT / "docs" / "results" / f"{given.page or given.dataset}.json"
    data = results.read_file(path)
    commit = results.commit_of(results.ROOT, dirty=False)
    for (modalities, shots), c in cells.items():
        columns = [f"{modalities}, {shots}-shot"]
        if modalities == "frame+audio":
            columns.append(f"both, {shots}-shot")
        for number, figure in enumerate(data.figures):
            if (figure.table, figure.row) == (given.record, method) and figure.column in columns:
                of_base = method == "protonet"
                width = None if of_base or c.error is None else round(c.error, 3)
                data.figures[number] = replace(
                    figure,
                    value=round(c.accuracy, 3),
                    interval_over=None if width is None else "clips",
                    difference=None if of_base else round(c.difference, 3),
                    difference_interval=width,
                    episodes=given.episodes,
                    command=command(given, method, modalities, shots),
                    commit=commit,
                )
    results.write_file(path, data)


def command(given: argparse.Namespace, method: str, modalities: str, shots: int) -> str:
    """The command that gives one cell again."""
    words = ["--dataset", given.dataset, "--cache", "CACHE"]
    if given.class_splits != ["default"]:
        words += ["--class-splits", ",".join(given.class_splits)]
    if given.episodes != 10_000:
        words += ["--episodes", str(given.episodes)]
    words += [word for setting in given.set for word in ("--set", setting)]
    words += ["--modalities", modalities, "--shots", str(shots), "--methods", method]
    return shlex.join(["python", "scripts/tables.py", *words])


def text(c: Cell | None, method: str) -> str:
    """The text of a cell: accuracy, and the paired difference to ProtoNet with its interval over clips."""
    if c is None:
        return "–"
    if method == "protonet":
        return f"{c.accuracy:.1f}"
    width = "" if c.error is None else f" ± {results.half_width(c.error, 1)}"
    return f"{c.accuracy:.1f} ({c.difference:+.1f}{width})"


if __name__ == "__main__":
    main()
