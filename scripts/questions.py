"""Writes tables of docs/results from the studies of examples/tutorial.yaml and examples/space.yaml.

    fsmm sweep examples/tutorial.yaml --cache CACHE --out tutorial
    python scripts/questions.py tutorial
    python scripts/results.py

The folder of `fsmm sweep examples/results.yaml`, which includes both, will do as well. Tables whose runs
are not done are left out; those that are done replace their own in docs/results/*.json. The ± of an accuracy is over
clips, that of a difference, paired query by query on the same episodes, over draws, clips and classes. Both count the
seeds of training.
"""

from __future__ import annotations

import argparse
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from figures.data import ROOT, Data, Figure, Table, put_tables
from figures.record import commit_of
from figures.study_cells import (
    against_chance,
    cell_of_outcomes,
    cell_of_rows,
    draws_of,
    figure,
    page_of,
    right,
)
from figures.study_parts import command_of_part, part_of

from fsmm.runs.statistics import Draws
from fsmm.studies.grid.store import Row, Study, read_study

DATASETS = {"ave28": "AVE-28", "demo": "demo"}
RULES = {"sum": "late", "product": "late, product", "max": "late, the most certain modality"}
CHANCE = 0.2


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("study", type=Path, help="the study's folder")
    options.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    given = options.parse_args()
    study = read_study(given.study)
    commit = commit_of(ROOT, dirty=given.dirty)
    for name, make in TABLES.items():
        part = part_of(study, page_of(name))
        made = () if part is None else make(part, name)
        figures = [
            replace(each, commit=commit, command=command_of_part(study, page_of(name), each.command or ""))
            for each in made
        ]
        print(f"{name}: {len(figures)} figures")
        if figures:
            store(name, figures)


# Which rows a table is made of


def rows_of(study: Study, *blocks: str, **varies: Any) -> list[Row]:
    """The rows of some blocks that are done and have these values."""
    return [
        row
        for row in study.done
        if row.block in blocks and all(row.varies.get(key) == value for key, value in varies.items())
    ]


def columns_of(study: Study, *blocks: str) -> list[tuple[str, str, int]]:
    """The column, the data set and the shots of each task of some blocks."""
    found = []
    for row in rows_of(study, *blocks):
        name, shots = row.config["dataset"], row.config["protocol"]["k_shot"]
        column = f"{DATASETS[name]}, {shots}-shot" if shots else f"{DATASETS[name]}, zero-shot"
        if (column, name, shots) not in found:
            found.append((column, name, shots))
    return found


def of_task(rows: Sequence[Row], dataset: str, shots: int) -> list[Row]:
    """The rows of one task."""
    return [
        row for row in rows if row.config["dataset"] == dataset and row.config["protocol"]["k_shot"] == shots
    ]


# Question 1


def fusion(study: Study, table: str) -> Iterator[Figure]:
    """Early fusion, and late fusion by each rule with its difference from it; few-shot, then zero-shot."""
    for end in ("", "-0"):
        early = rows_of(study, f"early{end}")
        for method in dict.fromkeys(row.varies["variant"] for row in early):
            for column, dataset, shots in columns_of(study, f"early{end}"):
                (first,) = of_task([r for r in early if r.varies["variant"] == method], dataset, shots)
                yield cell_of_rows(study, (table, f"{method}, early", column), [first])
                late = rows_of(study, f"late{end}", variant=method)
                for row in of_task(late, dataset, shots):
                    name = RULES[row.config["settings"]["fusion.rule"]]
                    yield cell_of_rows(study, (table, f"{method}, {name}", column), [row], [first])


def trained_fusion(study: Study, table: str) -> Iterator[Figure]:
    """Early and late fusion of heads that learn, and co-attention beside plain early fusion."""
    names = {"ec": "early", "lf": "late", "ea": "co-attention"}
    done = rows_of(study, "trained-fusion")
    for row in done:
        method, fused = row.varies["variant"], row.config["fusion"]
        ((column, dataset, shots),) = [
            c for c in columns_of(study, "trained-fusion") if of_task([row], c[1], c[2])
        ]
        base = [r for r in of_task(done, dataset, shots) if r.varies["variant"] == method]
        first = [r for r in base if r.config["fusion"] == "ec"] or of_task(
            rows_of(study, "early", variant=method), dataset, shots
        )
        yield cell_of_rows(
            study, (table, f"{method}, {names[fused]}", column), [row], [] if fused == "ec" else first
        )


# Question 2


def samples(study: Study, table: str) -> Iterator[Figure]:
    """What would be reached if each sample, or each class, were decided by one modality, beside all of them."""
    for end, method in (("", "ProtoNet"), ("", "SimpleShot"), ("-0", "word-prototypes")):
        for column, dataset, shots in columns_of(study, f"late{end}"):
            late = of_task(rows_of(study, f"late{end}", variant=method), dataset, shots)
            rules = {row.config["settings"]["fusion.rule"]: right(study, row) for row in late}
            alone = {
                row.varies["modalities"][0]: right(study, row)
                for row in of_task(rows_of(study, f"alone{end}", variant=method), dataset, shots)
            }
            if not alone or "sum" not in rules:
                continue
            draws = draws_of(study, late[0])
            each, whole = np.stack(list(alone.values())), rules["sum"]
            best = int(each.mean((1, 2)).argmax())
            said = {
                "all modalities (late)": whole,
                "the best modality": each[best],
                "the best modality of each class": best_of_class(each, draws),
                "the most certain modality of each sample": rules["max"],
                "a right modality of each sample": each.any(0),
            }
            for name, outcome in said.items():
                base = None if outcome is whole else whole
                yield cell_of_outcomes((table, f"{method}: {name}", column), outcome, draws, base)


def best_of_class(each: np.ndarray, draws: Draws) -> np.ndarray:
    """The outcomes [E, Q] where each class is decided by the modality that gets most of its queries right.

    each: the outcomes of each modality, bool [M, E, Q].
    """
    true = np.take_along_axis(draws.classes, draws.way, 1)
    asked = np.bincount(true.ravel())
    share = np.stack([np.bincount(true.ravel(), one.ravel()) / np.maximum(asked, 1) for one in each])
    chosen: np.ndarray = np.take_along_axis(each, share.argmax(0)[true][None], 0)[0]
    return chosen


def agreement(study: Study, table: str) -> Iterator[Figure]:
    """The share of the queries whose modalities are right alone, and of those that all together get right or wrong."""
    for end, method in (("", "ProtoNet"), ("", "SimpleShot"), ("-0", "word-prototypes")):
        for column, dataset, shots in columns_of(study, f"late{end}"):
            late = of_task(rows_of(study, f"late{end}", variant=method), dataset, shots)
            alone = of_task(rows_of(study, f"alone{end}", variant=method), dataset, shots)
            whole = [right(study, r) for r in late if r.config["settings"]["fusion.rule"] == "sum"]
            if not alone or not whole:
                continue
            draws, each = draws_of(study, late[0]), np.stack([right(study, row) for row in alone])
            shares = {
                "every modality alone is right": each.all(0),
                "some modality is right, and so are all": each.any(0) & ~each.all(0) & whole[0],
                "some modality is right, and all are wrong": each.any(0) & ~each.all(0) & ~whole[0],
                "no modality is right, and all are": ~each.any(0) & whole[0],
            }
            for name, share in shares.items():
                yield cell_of_outcomes((table, f"{method}: {name}", column), share, draws)


# Conclusion 1


def relation_heads(study: Study, table: str) -> Iterator[Figure]:
    """Groups of relations, as the mean over the seeds of the training, and the difference from none.

    A cell of which some seeds are not done is not measured.
    """
    cell = operator.itemgetter("dataset", "method", "k_shot", "settings.heads")
    done = {row.key for row in study.done}
    lacking = {cell(r.varies) for r in study.rows if r.block == "relation-heads" and r.key not in done}
    for method in ("gnn", "egnn", "eckpn"):
        mine = [r for r in rows_of(study, "relation-heads", method=method) if cell(r.varies) not in lacking]
        for heads in sorted({row.varies["settings.heads"] for row in mine}, key=int):
            for column, dataset, shots in columns_of(study, "relation-heads"):
                here = of_task(mine, dataset, shots)
                rows = [r for r in here if r.varies["settings.heads"] == heads]
                none = [r for r in here if int(r.varies["settings.heads"]) == 0]
                name = f"{method}, {heads} groups" if int(heads) else f"{method}, one relation"
                if rows:
                    yield cell_of_rows(study, (table, name, column), rows, none if int(heads) else [])


# Conclusion 2


def words(study: Study, table: str) -> Iterator[Figure]:
    """Heads with class words and the difference from the same without them."""
    for block in ("words", "trained-words"):
        names = list(dict.fromkeys(row.varies["variant"] for row in rows_of(study, block)))
        for name in names:
            base = max((n for n in names if n != name and name.startswith(n)), key=len, default=None)
            for column, dataset, shots in columns_of(study, block):
                rows = of_task(rows_of(study, block, variant=name), dataset, shots)
                first = of_task(rows_of(study, block, variant=base), dataset, shots) if base else []
                if rows:
                    text = f"{name}, trained" if block == "trained-words" else name
                    yield cell_of_rows(study, (table, text, column), rows, first)


def words_alone(study: Study, table: str) -> Iterator[Figure]:
    """Words without a support by early fusion, and the difference from chance."""
    for row in rows_of(study, "early-0"):
        place = table, str(row.varies["variant"]), DATASETS[row.config["dataset"]]
        yield against_chance(study, place, row, CHANCE)


# The common space


def augmentation(study: Study, table: str) -> Iterator[Figure]:
    """Every way of making supports up, and the difference from none."""
    done = rows_of(study, "augmentation")
    for how in dict.fromkeys(row.varies["settings.synthetic"] for row in done):
        for column, dataset, shots in columns_of(study, "augmentation"):
            here = of_task(done, dataset, shots)
            rows = [row for row in here if row.varies["settings.synthetic"] == how]
            none = [row for row in here if row.varies["settings.synthetic"] == "none"]
            if rows and none:
                yield cell_of_rows(study, (table, how, column), rows, [] if how == "none" else none)


def unlabelled(study: Study, table: str) -> Iterator[Figure]:
    """A curve over the clips without labels: the difference from no training, and the share of the gain of labels."""
    done = rows_of(study, "unlabelled")
    by_name = {
        name: [row for row in done if row.varies["variant"] == name]
        for name in dict.fromkeys(row.varies["variant"] for row in done)
    }
    ends = [by_name.get(name) for name in ("untrained", "all clips with labels")]
    if not all(ends):
        return
    first, last = (np.mean([study.metrics(row)["accuracy"] for row in rows or ()]) for rows in ends)
    for name, rows in by_name.items():
        yield cell_of_rows(
            study, (table, name, "accuracy"), rows, [] if name == "untrained" else ends[0] or ()
        )
        gain = np.mean([study.metrics(row)["accuracy"] for row in rows]) - first
        episodes = study.metrics(rows[0])["episodes"]
        yield figure((table, name, "share of the gain"), float(gain / (last - first)), episodes=episodes)


TABLES: Mapping[str, Callable[[Study, str], Iterator[Figure]]] = {
    "tutorial-fusion": fusion,
    "tutorial-trained-fusion": trained_fusion,
    "tutorial-samples": samples,
    "tutorial-agreement": agreement,
    "tutorial-relation-heads": relation_heads,
    "tutorial-words": words,
    "tutorial-words-alone": words_alone,
    "space-augmentation": augmentation,
    "space-unlabelled": unlabelled,
}
"""The makers of tables by name, which begins with that of its page."""
BASES = {
    "tutorial-fusion": "early fusion by the same head",
    "tutorial-trained-fusion": "early fusion by the same head",
    "tutorial-samples": "all modalities",
    "tutorial-agreement": None,
    "tutorial-relation-heads": "one relation",
    "tutorial-words": "the same head without words",
    "tutorial-words-alone": "chance (20 %)",
    "space-augmentation": "none",
    "space-unlabelled": "untrained",
}
"""What the differences of each table are taken from."""


def store(name: str, figures: Sequence[Figure]) -> None:
    """Replace one table in the data of its page."""
    columns = tuple(dict.fromkeys(each.column for each in figures))
    table = Table(name=name, corner="head", columns=columns, digits=1, difference_from=BASES[name])
    put_tables(ROOT / "docs" / "results" / f"{page_of(name)}.json", Data({name: table}, list(figures)))


if __name__ == "__main__":
    main()
