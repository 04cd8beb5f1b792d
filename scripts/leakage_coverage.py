"""Simulates data sets with groups and counts how often the interval of what leakage is worth holds the truth.

    python scripts/leakage_coverage.py --worlds 200 --out docs/results/trust.json

A world is one data set of twelve classes whose means are the same in all worlds; groups and clips are drawn anew. The
clips of a group share an offset, so that a query is easier beside a support of its group. Either a group is of one
class (a long video that was cut; eight groups of four clips a class), or it has clips of all classes (a person; sixteen
persons, two clips of each class). The truth is the mean difference over all worlds. The interval over groups is that of
``fsmm.runs.leakage``; beside it stands the same jackknife with every clip as a group of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from figures.data import UNKNOWN, Data, Figure, Table, put_tables

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.groups import group_numbers
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs.leakage import Outcomes, jackknife, left_out, outcomes

CLASSES, WIDTH = 12, 16
SPREAD = 0.8
"""The standard deviation of class means, in units of the clips' noise."""
TASK = Protocol(n_way=5, k_shot=1, n_query=5)
DESIGNS = {"groups of one class": (8, 4, True), "groups of all classes": (16, 2, False)}
"""Groups (a class, or in all), clips of a group in a class, and whether a group is of one class."""


@dataclass(frozen=True)
class World:
    """The difference of one data set, and the half widths of its intervals over groups and over clips."""

    difference: float
    over_groups: float
    over_clips: float


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--worlds", type=int, default=200)
    options.add_argument("--episodes", type=int, default=1000, help="of each protocol")
    options.add_argument("--out", type=Path, help="the file of figures whose table is replaced")
    given = options.parse_args()
    torch.set_num_threads(1)
    figures = []
    for design in DESIGNS:
        for effect in (0.0, 1.0):
            row = f"{design}, {f'offsets of {effect:g}' if effect else 'no offsets'}"
            found = [
                world(bank, given.episodes) for bank in banks(design, effect=effect, worlds=given.worlds)
            ]
            for column, value in figures_of(found).items():
                print(row, column, round(value, 2), flush=True)
                figures.append(figure(row, column, value, given))
    if given.out:
        columns = tuple(dict.fromkeys(one.column for one in figures))
        table = Table("leakage-coverage", corner="data", columns=columns, digits=1)
        put_tables(given.out, Data({table.name: table}, figures))


def banks(design: str, *, effect: float, worlds: int) -> Iterator[FeatureBank]:
    """The data sets of all worlds. effect: the standard deviation of the offset that the clips of a group share."""
    groups, clips, of_one_class = DESIGNS[design]
    mean = SPREAD * np.random.default_rng(0).normal(size=(CLASSES, WIDTH))
    for number in range(worlds):
        draws = np.random.default_rng((1, number))
        label = np.repeat(np.arange(CLASSES), groups * clips)
        group = np.tile(np.repeat(np.arange(groups), clips), CLASSES)
        if of_one_class:
            group = group + groups * label
        offset = effect * draws.normal(size=(int(group.max()) + 1, WIDTH))
        x = mean[label] + offset[group] + draws.normal(size=(len(label), WIDTH))
        one = torch.ones(len(label), dtype=torch.int64)
        table = TensorTable(torch.from_numpy(x[:, None].astype(np.float32)), one, one.bool())
        yield FeatureBank(
            dataset="world",
            split="all",
            label_set="class",
            class_split="default",
            streams={"frame": StreamName("frame", "made")},
            tables={"frame": table},
            label=torch.from_numpy(label),
            class_names=[f"class {c}" for c in range(CLASSES)],
            class_id=torch.arange(CLASSES),
            clip_row=np.arange(len(label)),
            groups=np.array([f"g{g}" for g in group], object),
        )


def world(bank: FeatureBank, episodes: int) -> World:
    """What leakage is worth in one data set to ProtoNet, and both intervals."""
    head, group = build_head("protonet", inputs_of(bank)), group_numbers(bank)
    each = np.arange(len(bank))
    found = [
        outcomes(head, bank, replace(TASK, shared_group=may), episodes=episodes, groups=each, unlabelled=None)
        for may in (True, False)
    ]
    widths = []
    for unit in (group, each):
        (first, without), (second, also) = (
            left_out(by(one, unit), int(unit.max()) + 1, CLASSES) for one in found
        )
        difference = first - second
        widths.append(jackknife(without - also).half_width())
    return World(difference, *widths)


def by(found: Outcomes, unit: np.ndarray) -> Outcomes:
    """Outcomes of clips as outcomes of the units that they belong to."""
    return replace(found, support=unit[found.support], query=np.where(found.query < 0, -1, unit[found.query]))


def figures_of(found: list[World]) -> dict[str, float]:
    """The mean difference in points, and the share of worlds whose intervals hold it, with their mean half widths."""
    difference = np.array([one.difference for one in found])
    groups, clips = (
        np.array([getattr(one, name) for one in found]) for name in ("over_groups", "over_clips")
    )
    truth = difference.mean()
    return {
        "leakage, points": 100 * truth,
        "spread of worlds, points": 100 * float(difference.std(ddof=1)),
        "held by the interval over groups, %": 100 * float((abs(difference - truth) <= groups).mean()),
        "its half width, points": 100 * float(groups.mean()),
        "held by one over clips, %": 100 * float((abs(difference - truth) <= clips).mean()),
        "half width over clips, points": 100 * float(clips.mean()),
    }


def figure(row: str, column: str, value: float, given: argparse.Namespace) -> Figure:
    command = f"python scripts/leakage_coverage.py --worlds {given.worlds} --episodes {given.episodes}"
    return Figure(
        page="trust",
        table="leakage-coverage",
        row=row,
        column=column,
        part=None,
        details=None,
        value=round(value, 2),
        unit="%" if column.endswith("%") else "points",
        interval=None,
        interval_over=None,
        difference=None,
        difference_widths=UNKNOWN,
        episodes=given.episodes,
        command=command,
        commit=None,
        note=None,
        run=None,
    )


if __name__ == "__main__":
    main()
