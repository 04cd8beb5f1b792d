"""Writes the tables that say what heads of docs/results/zero-shot.md learn from base classes, and from how many.

    python scripts/zero_shot_learning.py --cache CACHE --part steps      what is known after 30, 100 and 300 steps
    python scripts/zero_shot_learning.py --cache CACHE --part classes    unseen classes, by the number of base classes

Both are on the first --splits of the splits of scripts/zero_shot_study.py, of whose 20 base classes the first are taken
where there are to be fewer. --into FILE writes figures there, for `scripts/zero_shot_study.py --record FILE`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from figures.data import Figure, Table
from zero_shot_study import (
    BOTH,
    MAP,
    ROWS,
    WHOLE,
    figure,
    least_squares,
    processes,
    split,
    store,
    unseen_accuracy,
)

from fsmm.cache.bank import FeatureBank
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import METHODS
from fsmm.runs.class_folds import with_classes
from fsmm.runs.normalisation import prepared
from fsmm.runs.statistics import draw_uncertainty
from fsmm.runs.train import train
from fsmm.runs.zero_shot import held_out, zero_shot

STEPS = (30, 70, 200)  # One after the other: after 30, 100 and 300 steps in all.
CLASSES = (5, 10, 15, 20)
ASKED = ("held-out clips of base classes", "unseen classes")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cache", type=Path, required=True)
    options.add_argument("--part", choices=("steps", "classes"), required=True)
    options.add_argument("--splits", type=int, default=8)
    options.add_argument("--rows", help="only the heads whose name holds this text")
    options.add_argument("--jobs", type=int, default=1, help="processes that share the splits")
    options.add_argument("--into", type=Path, help="write figures here, without a commit")
    given = options.parse_args()
    raw = FeatureBank.load(given.cache, list(BOTH), "all", dataset="ave28")
    banks = {time: prepared(raw, "l2", pools=not time) for time in (False, True)}
    {"steps": by_steps, "classes": by_classes}[given.part](given, banks)


def command(given: argparse.Namespace) -> str:
    """The command that makes the figures of a part again."""
    return f"python scripts/zero_shot_learning.py --cache CACHE --part {given.part} --splits {given.splits}"


# After how many steps


def by_steps(given: argparse.Namespace, banks: Mapping[bool, FeatureBank]) -> None:
    """What trained heads know of base and of unseen classes after some steps on 20 base classes."""
    columns = ("30 steps", "100 steps", "300 steps")
    table = Table(name="zero-shot-learning", corner="head; asked about", columns=columns, digits=1)
    with processes(given.jobs) as pool:
        for name, method, modalities, settings, steps in ROWS:
            if not steps or (given.rows and given.rows not in name):
                continue
            bank = banks[METHODS[method].reads_time].select(list(modalities))
            chosen = map(split, range(given.splits))
            waiting = [pool.submit(learned, bank, method, settings, *pair) for pair in chosen]
            found = np.array([each.result() for each in waiting])  # [splits, steps, ASKED]
            figures = [
                share(table, f"{name}; {asked}", column, found[:, number, side], command(given))
                for side, asked in enumerate(ASKED)
                for number, column in enumerate(columns)
            ]
            store(given, [table], figures)
            print(name, (100 * found.mean(0)).round(1).tolist(), flush=True)


def learned(
    bank: FeatureBank, method: str, settings: Mapping[str, str], base: list[int], unseen: list[int]
) -> list[tuple[float, float]]:
    """The accuracy on held-out clips of base classes, and that on unseen classes, after each of STEPS."""
    kept, held = held_out(with_classes(bank, base), 0)
    torch.manual_seed(0)
    head = build_head(method, inputs_of(kept, base_classes=len(base), way=len(unseen)), settings, "ec")
    if METHODS[method].fits_base:
        head.fit_base(kept)
    found = []
    for steps in STEPS:
        train(head, kept, None, WHOLE, replace(head.recipe, steps=steps, ceiling=1, evaluate_every=steps))
        found.append((zero_shot(head, held).unseen, zero_shot(head, with_classes(bank, unseen)).unseen))
    return found


# From how many classes


def by_classes(given: argparse.Namespace, banks: Mapping[bool, FeatureBank]) -> None:
    """The accuracy of the least-squares map and of every head of both modalities, by the number of base classes."""
    columns = tuple(str(count) for count in CLASSES)
    table = Table(name="zero-shot-classes", corner="method", columns=columns, digits=1)
    chosen = [split(seed) for seed in range(given.splits)]
    with processes(given.jobs) as pool:
        for name, method, modalities, settings, steps in ((MAP, "", BOTH, {}, 0), *ROWS):
            if modalities != BOTH or (given.rows and given.rows not in name):
                continue
            figures = []
            for count in CLASSES:
                pairs = [(base[:count], unseen) for base, unseen in chosen]
                if method:
                    bank = banks[METHODS[method].reads_time].select(list(modalities))
                    waiting = [
                        pool.submit(unseen_accuracy, bank, method, settings, steps, *pair) for pair in pairs
                    ]
                    found = np.array([each.result() for each in waiting])
                else:
                    found = np.array([least_squares(banks[False], modalities, *pair) for pair in pairs])
                figures.append(share(table, name, str(count), found, command(given)))
            store(given, [table], figures)
            print(name, [each.value for each in figures], flush=True)


def share(table: Table, row: str, column: str, found: np.ndarray, made_by: str) -> Figure:
    """The figure of accuracies of several splits, with their interval over splits; one split alone has none."""
    width = draw_uncertainty(found).half_width()
    return figure(
        table.name,
        row,
        column,
        100 * found.mean(),
        interval=100 * width if np.isfinite(width) else None,
        command=made_by,
        episodes=len(found),
    )


if __name__ == "__main__":
    main()
