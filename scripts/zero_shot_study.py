"""Writes tables of docs/results/zero-shot.md: zero-shot on splits of AVE-28 that are drawn here, and words by position.

    python scripts/zero_shot_study.py --cache CACHE --part splits        zero-shot on 20 splits of AVE-28
    python scripts/zero_shot_study.py --cache CACHE --part position      whose words a class gets
    python scripts/zero_shot_study.py --record FILE ...                  take over what --into wrote elsewhere

Each part replaces its own rows in docs/results/zero-shot.json; `python scripts/results.py` then writes the page. With
--into FILE they are written there instead, without a commit, as on a machine that has no history of the code; several
processes may then do one row each (--rows) and write a file each. The splits hold 8 unseen and 20 base classes: numpy's
default_rng(s).permutation(28), s = 0 .. 19, whose first 8 are unseen. Heads are trained on the 20 base classes for the
steps in ROWS; the least-squares map is computed here with numpy, apart from the heads.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures.data import UNKNOWN, Data, Figure, Table, Widths, read_file, write_file

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import METHODS
from fsmm.runs.class_folds import with_classes
from fsmm.runs.normalisation import prepared
from fsmm.runs.statistics import draw_uncertainty
from fsmm.runs.train import train
from fsmm.runs.zero_shot import zero_shot

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "zero-shot.json"
SCRIPT = "python scripts/zero_shot_study.py --cache CACHE"
SPLITS, UNSEEN = 20, 8
BOTH = ("frame", "audio")
MAP = "least-squares map"
WHOLE = Protocol(n_way=0, k_shot=0)
SPLIT_TABLES = ("zero-shot-splits", "zero-shot-learning", "zero-shot-classes")
# The rows of the splits: a method, its modalities, settings and the steps of its training.
ROWS: tuple[tuple[str, str, tuple[str, ...], Mapping[str, str], int], ...] = (
    ("ridge-words, audio", "ridge-words", ("audio",), {}, 0),
    ("ridge-words, video", "ridge-words", ("frame",), {}, 0),
    ("ridge-words", "ridge-words", BOTH, {}, 0),
    ("frozen-space (words to features)", "frozen-space", BOTH, {}, 0),
    ("word-prototypes, audio", "word-prototypes", ("audio",), {}, 0),
    ("word-prototypes, video", "word-prototypes", ("frame",), {}, 0),
    ("word-prototypes", "word-prototypes", BOTH, {}, 0),
    ("word-prototypes, no whitening", "word-prototypes", BOTH, {"whiten": "false"}, 0),
    ("gda-new", "gda-new", BOTH, {}, 0),
    ("em-dirichlet (transductive)", "em-dirichlet", BOTH, {}, 0),
    ("common-space", "common-space", BOTH, {}, 100),
    ("cjme", "cjme", BOTH, {}, 100),
    ("avgzslnet", "avgzslnet", BOTH, {}, 100),
    ("avca", "avca", BOTH, {}, 100),
    ("clipclap", "clipclap", BOTH, {}, 100),
    ("tcaf", "tcaf", BOTH, {}, 60),
    ("protagonist (frames for objects)", "protagonist", BOTH, {}, 100),
)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cache", type=Path)
    options.add_argument("--part", choices=sorted(PARTS))
    options.add_argument("--splits", type=int, default=SPLITS)
    options.add_argument("--rows", help="only the rows whose name holds this text")
    options.add_argument("--jobs", type=int, default=1, help="processes that share the splits")
    options.add_argument("--into", type=Path, help="write figures here, without a commit")
    options.add_argument("--record", type=Path, nargs="+", help="files of --into to take over")
    given = options.parse_args()
    if given.record:
        record(given.record)
    elif given.cache is None or given.part is None:
        options.error("give --cache and --part, or --record")
    else:
        PARTS[given.part](given)


# Zero-shot on random splits


def splits(given: argparse.Namespace) -> None:
    """Zero-shot on 8 unseen classes of 28, each method paired with the least-squares map on the same splits."""
    raw = FeatureBank.load(given.cache, list(BOTH), "all", dataset="ave28")
    banks = {time: prepared(raw, "l2", pools=not time) for time in (False, True)}
    chosen = [split(seed) for seed in range(given.splits)]
    maps = {
        what: np.array([least_squares(banks[False], modalities, *pair) for pair in chosen])
        for what, modalities in (("audio", ("audio",)), ("video", ("frame",)), ("both", BOTH))
    }
    base = maps["both"]
    table = Table(
        name="zero-shot-splits",
        corner="method",
        columns=("accuracy",),
        digits=1,
        difference_from=MAP,
    )
    store(given, [table], [row_of(f"{MAP}, {what}", values, base) for what, values in maps.items()])
    with processes(given.jobs) as pool:
        waiting = {}
        for name, method, modalities, settings, steps in ROWS:
            if given.rows and given.rows not in name:
                continue
            bank = banks[METHODS[method].reads_time].select(list(modalities))
            asked = (bank, method, settings, steps)
            waiting[name] = [pool.submit(unseen_accuracy, *asked, *pair) for pair in chosen]
        for name, results in waiting.items():
            found = row_of(name, np.array([result.result() for result in results]), base)
            store(given, [table], [found])
            print(name, found.value, found.difference, found.difference_widths.classes, flush=True)


def processes(jobs: int) -> ProcessPoolExecutor:
    """Processes of one thread each, so that figures do not depend on their number."""
    return ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


def split(seed: int) -> tuple[list[int], list[int]]:
    """The base and the unseen classes of a split."""
    order = np.random.default_rng(seed).permutation(28)
    return sorted(order[UNSEEN:].tolist()), sorted(order[:UNSEEN].tolist())


def unseen_accuracy(
    bank: FeatureBank,
    method: str,
    settings: Mapping[str, str],
    steps: int,
    base: list[int],
    unseen: list[int],
) -> float:
    """The per-class-mean accuracy on unseen classes of a head made from the base classes."""
    clips = with_classes(bank, base)
    torch.manual_seed(0)
    head = build_head(method, inputs_of(clips, base_classes=len(base), way=len(unseen)), settings, "ec")
    if METHODS[method].fits_base:
        head.fit_base(clips)
    if steps:
        train(head, clips, None, WHOLE, replace(head.recipe, steps=steps, ceiling=1, evaluate_every=steps))
    test = with_classes(bank, unseen)
    return zero_shot(head, test, transductive=METHODS[method].transductive).unseen


def least_squares(bank: FeatureBank, modalities: Sequence[str], base: list[int], unseen: list[int]) -> float:
    """The accuracy of W = (X'X + lambda I)^-1 X'Y on centred features and words, by cosine, in numpy.

    lambda is the mean squared entry of X times the number of clips.
    """
    x = np.concatenate([bank.tables[m].pooled().x[:, 0].numpy().astype(float) for m in modalities], 1)
    assert bank.words is not None
    label, words = bank.label.numpy(), unit(bank.words.numpy().astype(float))
    here, there = np.isin(label, base), np.isin(label, unseen)
    centre, middle = x[here].mean(0), words[base].mean(0)
    seen = x[here] - centre
    gram = seen.T @ seen + (seen**2).mean() * len(seen) * np.eye(seen.shape[1])
    weights = np.linalg.solve(gram, seen.T @ (words[label[here]] - middle))
    scores = unit((x[there] - centre) @ weights) @ unit(words[unseen] - middle).T
    right = np.array(unseen)[scores.argmax(1)] == label[there]
    return float(np.mean([right[label[there] == c].mean() for c in unseen]))


def unit(x: np.ndarray) -> np.ndarray:
    """The rows of x at length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def row_of(name: str, values: np.ndarray, base: np.ndarray) -> Figure:
    """The mean over splits with its interval, and the paired difference from the least-squares map of both."""
    gap = values - base
    same = not gap.any()
    return figure(
        "zero-shot-splits",
        name,
        "accuracy",
        100 * values.mean(),
        interval=100 * draw_uncertainty(values).half_width(),
        difference=None if same else 100 * gap.mean(),
        difference_widths=UNKNOWN if same else Widths(classes=100 * draw_uncertainty(gap).half_width()),
        command=f"{SCRIPT} --part splits",
        episodes=len(values),
    )


# Whose words a class gets

AVE = "--class-split s0 --modalities frame,audio"
BRIEF = "--set train.steps=60 --set train.evaluate_every=30"


def position(given: argparse.Namespace) -> None:
    """AVE-28 with one class published under another name: zero-shot by name and by position."""
    bank = FeatureBank.load(given.cache, ["audio"], "all", dataset="ave28")
    names = sorted(bank.class_names)
    table = Table(name="words-by-position", corner="class words", columns=("accuracy",), digits=1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "names.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["original", "manual"])
            writer.writerows([[name, "zz" if name == names[0] else name] for name in names])
        for row, added in (
            ("by name", ""),
            ("by position", f" --set words_by=position --set word_names={path}"),
        ):
            options = f"--dataset ave28 --method avca {AVE} --n-way 0 --k-shot 0 {BRIEF}{added}"
            command = [sys.executable, "-m", "fsmm", "-q", "episode-eval", *options.split()]
            command += [
                "--cache",
                str(given.cache),
                "--out",
                str(Path(folder) / row.replace(" ", "-")),
                "--json",
            ]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found = json.loads(done.stdout)
            print(row, found["accuracy"], found["notes"], flush=True)
            value = 100 * found["accuracy"]
            more = {"command": f"{SCRIPT} --part position"}
            store(given, [table], [figure(table.name, row, "accuracy", value, **more)])


# Storing figures


def figure(table: str, row: str, column: str, value: float, **more: Any) -> Figure:
    """One figure of the page, without what it does not have."""
    given: dict[str, Any] = {
        "part": None,
        "details": None,
        "interval": None,
        "difference": None,
        "difference_widths": UNKNOWN,
        "episodes": None,
        "command": None,
        "commit": None,
        "note": None,
        "run": None,
        **more,
    }
    given["difference_widths"] = given["difference_widths"].rounded(2)
    for name in ("interval", "difference"):
        given[name] = None if given[name] is None else round(float(given[name]), 2)
    over = ("classes" if table in SPLIT_TABLES else "draws") if given["interval"] is not None else None
    return Figure(
        page="zero-shot", table=table, row=row, column=column, value=round(float(value), 2), unit="%",
        interval_over=over, **given,
    )  # fmt: skip


def commit() -> str | None:
    """The commit of this checkout; None where it has uncommitted changes outside docs/."""
    status = ["git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no", ":!docs"]
    if subprocess.run(status, check=True, capture_output=True, text=True).stdout:
        return None
    found = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"],
        check=True,
        capture_output=True,
        text=True,
    )
    return found.stdout.strip()


def store(given: argparse.Namespace, tables: Sequence[Table], figures: Sequence[Figure]) -> None:
    """Replace these figures in the page's data, with this checkout's commit, or in the file of --into."""
    if given.into is None:
        replace_figures(PAGE, tables, [replace(each, commit=commit()) for each in figures])
    else:
        replace_figures(given.into, tables, figures)


def record(files: Sequence[Path]) -> None:
    """Take the figures of files that --into wrote over into the page's data, as made by this checkout's commit."""
    for data in map(read_file, files):
        figures = [replace(each, commit=commit()) for each in data.figures]
        replace_figures(PAGE, list(data.tables.values()), figures)


def replace_figures(path: Path, tables: Sequence[Table], figures: Sequence[Figure]) -> None:
    """Replace figures in a file; rows that were not measured this time stay as they are."""
    data = read_file(path) if path.is_file() else Data()
    data.tables.update({table.name: table for table in tables})
    fresh = {f.place: f for f in figures}
    kept = [fresh.pop(f.place, f) for f in data.figures]
    data.figures = [*kept, *fresh.values()]
    write_file(path, data)


PARTS = {
    "splits": splits,
    "position": position,
}

if __name__ == "__main__":
    main()
