"""Writes tables of docs/results/space.md from studies of what clips lack, and of what supports and queries carry.

    fsmm sweep modality-table --dataset ave28 --cache CACHE --out modality-table
    fsmm sweep missing --dataset ave28 --cache CACHE --out missing
    fsmm sweep fillers --dataset ave28 --cache CACHE --out fillers
    fsmm sweep examples/promise.yaml --cache CACHE --out promise
    python scripts/modality_tables.py modality-table missing fillers promise
    python scripts/results.py

The folder of `fsmm sweep examples/results.yaml`, which includes them all, will do as well. What is not done is left
out of a table. Differences are paired query by query on the same episodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from figures.data import ROOT, Data, Figure, Table, put_tables, read_file
from figures.record import commit_of
from figures.study_cells import cell_of_rows, figure
from figures.study_parts import command_of_part, part_of
from filler_curves import filler_curves
from questions import rows_of

from fsmm.studies.grid.store import Row, Study, read_study

PATH = ROOT / "docs" / "results" / "space.json"
RULES = ("auto", "drop", "match", "match-linear", "mean", "neighbours", "linear", "zero")
SIDES = {"support": "supports", "query": "queries", "both": "all clips"}
FILLERS = ("fillers", "fillers-trained")
NAMES = {"frame": "video"}
DATASETS = {"ave28": "AVE-28", "utd-segments": "UTD-MHAD", "demo": "the demo set"}
ALONE = {"promise": "examples/promise.yaml"}
"""What names a study that is no preset of AVE-28."""
CHOSEN = "chosen on val"
VAL = "val classes"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("studies", type=Path, nargs="+", help="the folders of the studies")
    options.add_argument("--dirty", action="store_true", help="allow uncommitted changes; stores no commit")
    given = options.parse_args()
    commit = commit_of(ROOT, dirty=given.dirty)
    for folder in given.studies:
        study = read_study(folder)
        for preset in MAKERS:
            if part := part_of(study, preset):
                what = ALONE.get(preset, f"{preset} --dataset ave28")
                alone = f"fsmm sweep {what} --cache CACHE --out {preset}"
                store(preset, part, command_of_part(study, preset, alone), commit)


def store(preset: str, part: Study, command: str, commit: str | None) -> None:
    """Write the tables of a preset's runs.

    part: the runs. command: what makes them again. commit: that of the code that made them.
    """
    for name, make in MAKERS[preset].items():
        figures = [replace(each, command=command, commit=commit) for each in make(part, name)]
        print(f"{name}: {len(figures)} figures")
        if figures:
            table = replace(LAYOUTS[name], name=name)
            put_tables(PATH, Data({name: table}, figures))
    if curves := filler_curves(read_file(PATH), (*RULES[1:], "auto")):
        PATH.with_name("missing-ave28.svg").write_text(curves, encoding="utf-8")


# The modality table


def modalities(study: Study, table: str) -> Iterator[Figure]:
    """Heads by what their supports and their queries carry, and a head trained on one modality by both."""
    for block in ("free", "support-query", "train-test"):
        trained, done = block == "train-test", rows_of(study, block)
        heads = dict.fromkeys((label_of(row), shots_of(row)) for row in done)
        for label, shots in heads:
            name = f"{label}, {shots}-shot{', trained on one' if trained else ''}"
            for row in done:
                if (label_of(row), shots_of(row)) == (label, shots):
                    yield cell_of_rows(study, (table, name, passage(row, trained=trained)), [row])


def passage(row: Row, *, trained: bool) -> str:
    """The column of a row: what is learned from, which is the training's or the supports', and what is tested."""
    protocol = row.config["protocol"]
    first = row.config["train_modalities"] if trained else protocol["support_modalities"]
    return f"{carried(row, first)} -> {carried(row, protocol['query_modalities'])}"


def carried(row: Row, names: Sequence[str] | None) -> str:
    """A text for some of a run's modalities; None and all of them are "both"."""
    every = [stream.partition("/")[0] for stream in row.config["streams"]]
    names = list(names or every)
    return NAMES.get(names[0], names[0]) if len(names) == 1 else "both"


def label_of(row: Row) -> str:
    """The name of a row's head."""
    return str(row.varies.get("variant") or row.varies.get("method") or row.config["method"])


def shots_of(row: Row) -> int:
    return int(row.config["protocol"]["k_shot"])


# Missing modalities


def rates(study: Study, table: str) -> Iterator[Figure]:
    """The accuracy as queries lose one modality, by rate."""
    done = rows_of(study, "rates")
    lost = dict.fromkeys(each["modality"] for row in done for each in row.config["protocol"]["missing"])
    for method in dict.fromkeys(map(label_of, done)):
        for modality in lost:
            name = f"{method}, queries without {NAMES.get(modality, modality)}"
            for row in done:
                missing = row.config["protocol"]["missing"]
                if label_of(row) == method and all(each["modality"] == modality for each in missing):
                    rate = missing[0]["rate"] if missing else 0
                    yield cell_of_rows(study, (table, name, f"{rate:g}"), [row])


def fillers(study: Study, table: str) -> Iterator[Figure]:
    """Every filler, and its difference from the default, by what clips lack."""
    for block in FILLERS:
        for (head, lack), rows in by_task(study, block).items():
            for rule in RULES:
                if rule in rows and "auto" in rows:
                    base = [] if rule == "auto" else [rows["auto"]]
                    yield replace(cell_of_rows(study, (table, lack, rule), [rows[rule]], base), details=head)


def law(study: Study, table: str) -> Iterator[Figure]:
    """For each filler the difference from the default that speaks most against the default, over rates and modalities.

    The filler that is chosen singly is that of the best accuracy on the val classes that the default asks.
    """
    worst: dict[tuple[str, str, str], Figure] = {}
    for block in FILLERS:
        for (head, lack), rows in by_task(study, block).items():
            if "auto" not in rows:
                continue
            side = SIDES[side_of(rows["auto"])]
            singly = chosen(study, rows["auto"])
            for rule in RULES[1:]:
                if rule not in rows:
                    continue
                found = cell_of_rows(study, (table, head, rule), [rows[rule]], [rows["auto"]])
                for column in (rule, CHOSEN) if rule == singly else (rule,):
                    mine = replace(found, details=side, column=column, note=f"[{lack}]")
                    held = worst.get((head, side, column))
                    worst[head, side, column] = mine if held is None else max(held, mine, key=least)
    yield from worst.values()


def least(found: Figure) -> float:
    """The lower end of a difference's interval over clips."""
    assert found.difference is not None, "only differences are compared"
    return found.difference - (found.difference_widths.clips or 0.0)


def chosen(study: Study, row: Row) -> str | None:
    """The filler that val classes would choose if supports and queries had to have the same; None: nothing.

    Base classes choose where there are no val classes that can serve the task.
    """
    choice = study.metrics(row)["when_missing_choice"] or {}
    scores = choice.get("scores_by_part", {}).get(VAL) or choice.get("scores", {})
    named = {rule: key_of(rule, side_of(row)) for rule in RULES[1:]}
    found = {rule: scores[key] for rule, key in named.items() if key in scores}
    return max(found, key=lambda rule: found[rule]) if found else None


def key_of(rule: str, side: str) -> str:
    """The name of a single filler among the candidates of the default (runs/filling.py, Pair)."""
    support = "drop" if side == "query" or rule == "match" else rule
    support = "linear" if support == "match-linear" else support
    query = "drop" if side == "support" else rule
    return query if support == query else f"{support} supports, {query} queries"


def by_task(study: Study, block: str) -> dict[tuple[str, str], dict[str, Row]]:
    """The rows of a block by head and by what clips lack, each by its filler."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows_of(study, block):
        found.setdefault((label_of(row), lacking(row)), {})[row.config["when_missing"]] = row
    return found


def side_of(row: Row) -> str:
    """The side whose clips lack a modality."""
    return str(row.config["protocol"]["missing"][0]["side"])


def lacking(row: Row) -> str:
    """What the clips of a run lack, in words."""
    (lost,) = row.config["protocol"]["missing"]
    name = NAMES.get(lost["modality"], lost["modality"])
    return f"{100 * lost['rate']:.0f} % of {SIDES[lost['side']]} without {name}"


def promise(study: Study, table: str) -> Iterator[Figure]:
    """How often a filler alone is ahead of the default beyond the interval over clips, by data set, shots and side.

    Every run of the default says what each filler alone reaches on its episodes, and which are ahead.
    """
    cells: dict[tuple[str, str], list[Kept]] = {}
    for row in study.done:
        choice = study.metrics(row)["when_missing_choice"]
        if choice and choice["beside"] and row.config["protocol"]["missing"]:
            dataset = study.load(row)[0]["dataset"]
            task = f"{DATASETS.get(dataset, dataset)}, {shots_of(row)}-shot"
            kept = Kept(ways=choice["beside"], episodes=study.metrics(row)["episodes"])
            cells.setdefault((task, SIDES[side_of(row)]), []).append(kept)
    for (task, side), found in cells.items():
        ahead = [
            [way["gain"] for way in each.ways if way["ci95"] is not None and way["gain"] > way["ci95"]]
            for each in found
        ]
        values = {
            "runs": len(found),
            "comparisons": sum(len(each.ways) for each in found),
            "runs that say that a filler is ahead": sum(map(bool, ahead)),
            "fillers ahead": sum(map(len, ahead)),
            "by at most": 100 * max((gain for gains in ahead for gain in gains), default=0.0),
        }
        for column, value in values.items():
            unit = "points" if column == "by at most" else column
            place = figure((table, task, column), 0.0, episodes=found[0].episodes)
            yield replace(place, details=side, value=value, unit=unit)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What one run of the default says of its promise."""

    ways: Sequence[Mapping[str, Any]]
    """What each filler alone gains, and the half width of the gain, as the run has them."""
    episodes: int
    """The number of its episodes."""


def dropout(study: Study, table: str) -> Iterator[Figure]:
    """Training on whole clips, and at the rate that val classes choose, with the difference between them."""
    done = rows_of(study, "dropout")
    by_default = {lacking(row): row for row in done if row.config["train_missing"] == "auto"}
    whole = {lacking(row): row for row in done if row.config["train_missing"] != "auto"}
    for lack in dict.fromkeys(map(lacking, done)):
        if lack in whole:
            yield cell_of_rows(study, (table, lack, "whole clips"), [whole[lack]])
            if lack in by_default:
                place = (table, lack, "default")
                yield cell_of_rows(study, place, [by_default[lack]], [whole[lack]])


PLACES = ("audio", "video", "both")
PASSAGES = tuple(f"{a} -> {b}" for a in PLACES for b in PLACES)
RATES = tuple(f"{i / 10:g}" for i in range(11))
LACK = "what is missing"
_DEFAULT = "the default"
LAYOUTS = {
    "space-modalities": Table("", corner="head", columns=PASSAGES, digits=1),
    "space-rates": Table("", corner="head", columns=RATES, digits=1),
    "space-fillers": Table(
        "", corner=LACK, details="head", columns=RULES, digits=1, difference_from=_DEFAULT
    ),
    "space-law": Table(
        "",
        corner="head",
        details="what lacks a modality",
        columns=(*RULES[1:], CHOSEN),
        digits=1,
        difference_from=_DEFAULT,
    ),
    "space-promise": Table(
        "",
        corner="data set and shots",
        details="what lacks a modality",
        columns=(
            *("runs", "comparisons"),
            *("runs that say that a filler is ahead", "fillers ahead", "by at most"),
        ),
        digits=1,
    ),
    "space-dropout": Table(
        "",
        corner=LACK,
        columns=("whole clips", "default"),
        digits=1,
        difference_from="training on whole clips",
    ),
}
"""How the tables are laid out, by their names."""
MAKERS: Mapping[str, Mapping[str, Callable[[Study, str], Iterator[Figure]]]] = {
    "modality-table": {"space-modalities": modalities},
    "missing": {
        "space-rates": rates,
        "space-fillers": fillers,
        "space-law": law,
        "space-dropout": dropout,
    },
    "fillers": {"space-fillers": fillers, "space-law": law},
    "promise": {"space-promise": promise},
}
"""The makers of the tables of each study."""


if __name__ == "__main__":
    main()
