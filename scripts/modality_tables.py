"""Writes tables of docs/results/space.md from the studies of the presets modality-table and missing on AVE-28.

    fsmm sweep modality-table --dataset ave28 --cache CACHE --out modality-table
    fsmm sweep missing --dataset ave28 --cache CACHE --out missing
    python scripts/modality_tables.py modality-table missing
    python scripts/results.py

What is not done is left out of a table. Every ± is a 95 % interval over clips, of differences too, which are paired
query by query on the same episodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from questions import cell, rows_of
from results import ROOT, Data, Figure, Table, commit_of, put_tables

from fsmm.studies.grid.store import Row, Study, read_study

PAGE = "space"
RULES = ("auto", "drop", "match", "mean", "neighbours", "linear", "zero")
SIDES = {"support": "supports", "query": "queries", "both": "all clips"}
FILLERS = ("fillers", "fillers-trained")
NAMES = {"frame": "video"}
CHOSEN = "chosen singly"
Cells = Iterator[dict[str, Any] | None]


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
        command = f"fsmm sweep {study.name} --dataset ave28 --cache CACHE --out {study.name}"
        for table, make in TABLES[study.name]:
            figures = [figure for figure in make(study, table.name) if figure is not None]
            print(f"{table.name}: {len(figures)} figures")
            if figures:
                store(table, figures, commit=commit, command=command)


def store(table: Table, figures: Sequence[Mapping[str, Any]], *, commit: str | None, command: str) -> None:
    """Replace one table in the data of its page."""
    own = {"page": PAGE, "commit": commit, "command": command}
    path = ROOT / "docs" / "results" / f"{PAGE}.json"
    put_tables(path, Data({table.name: table}, [Figure(**{**each, **own}) for each in figures]))


# The modality table


def modalities(study: Study, table: str) -> Cells:
    """Heads by what their supports and their queries carry, and a head trained on one modality by both."""
    for block in ("free", "support-query", "train-test"):
        done = rows_of(study, block)
        for label in dict.fromkeys(label_of(row) for row in done):
            for shots in sorted({shots_of(row) for row in done}):
                for row in done:
                    if (label_of(row), shots_of(row)) == (label, shots):
                        named = f"{label}, {shots}-shot"
                        yield cell(study, table, f"{named}, trained on one" if block == "train-test" else named,
                                   passage(row, trained=block == "train-test"), [row])  # fmt: skip


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
    return str(row.varies.get("variant", row.config["method"]))


def shots_of(row: Row) -> int:
    return int(row.config["protocol"]["k_shot"])


# Missing modalities


def rates(study: Study, table: str) -> Cells:
    """The accuracy as queries lose one modality, by rate."""
    done = rows_of(study, "rates")
    for method in dict.fromkeys(row.config["method"] + (row.config["fusion"] or "") for row in done):
        mine = [row for row in done if row.config["method"] + (row.config["fusion"] or "") == method]
        for lost in sorted({each["modality"] for row in mine for each in row.config["protocol"]["missing"]}):
            for row in mine:
                found = [m for m in row.config["protocol"]["missing"] if m["modality"] == lost]
                if found or not row.config["protocol"]["missing"]:
                    rate = found[0]["rate"] if found else 0
                    name = f"{row.varies.get('method', method)}, queries without {NAMES.get(lost, lost)}"
                    yield cell(study, table, name, f"{rate:g}", [row])


def fillers(study: Study, table: str) -> Cells:
    """Every filler, and its difference from the default, by what clips lack."""
    for block in FILLERS:
        for (head, _), rows in by_task(study, block).items():
            for rule in RULES:
                if rule in rows and "auto" in rows:
                    base = [] if rule == "auto" else [rows["auto"]]
                    found = cell(study, table, lacking(rows["auto"]), rule, [rows[rule]], base)
                    yield None if found is None else {**found, "details": head}


def law(study: Study, table: str) -> Cells:
    """For each filler the difference from the default that speaks most against the default, over rates and modalities.

    The filler that is chosen singly is that of the best accuracy on the base and val classes that the default asks.
    """
    worst: dict[tuple[str, str, str], dict[str, Any]] = {}
    for block in FILLERS:
        for (head, _), rows in by_task(study, block).items():
            if "auto" not in rows:
                continue
            side = SIDES[rows["auto"].config["protocol"]["missing"][0]["side"]]
            singly = chosen(study, rows["auto"])
            for rule in RULES[1:]:
                if rule not in rows:
                    continue
                found = cell(study, table, head, rule, [rows[rule]], [rows["auto"]])
                for column in (rule, CHOSEN) if rule == singly else (rule,):
                    if found is not None:
                        keep_worse(worst, (head, side, column), found)
    for (head, side, column), found in worst.items():
        yield {
            **found,
            "row": head,
            "details": side,
            "column": column,
            "value": None,
            "interval": None,
        }


def keep_worse(
    worst: dict[tuple[str, str, str], dict[str, Any]], place: tuple[str, str, str], found: dict[str, Any]
) -> None:
    """Keep the difference whose interval begins highest."""
    held = worst.get(place)
    if held is None or floor(found) > floor(held):
        worst[place] = found


def floor(found: Mapping[str, Any]) -> float:
    """The lower end of a difference's interval."""
    return float(found["difference"] - (found["difference_interval"] or 0.0))


def chosen(study: Study, row: Row) -> str | None:
    """The filler that base and val classes would choose if supports and queries had to have the same; None: nothing."""
    choice = study.metrics(row)["when_missing_choice"]
    side = row.config["protocol"]["missing"][0]["side"]
    named = {rule: key_of(rule, side) for rule in RULES[1:]}
    scores = {
        rule: choice["scores"][key] for rule, key in named.items() if choice and key in choice["scores"]
    }
    return max(scores, key=lambda rule: scores[rule]) if scores else None


def key_of(rule: str, side: str) -> str:
    """The name of a single filler among the candidates of the default (runs/filling.py, Pair)."""
    support = "drop" if side == "query" or rule == "match" else rule
    query = "drop" if side == "support" else rule
    return query if support == query else f"{support} supports, {query} queries"


def by_task(study: Study, block: str) -> dict[tuple[str, str], dict[str, Row]]:
    """The rows of a block by head and by what clips lack, each by its filler."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for row in rows_of(study, block):
        found.setdefault((label_of(row), lacking(row)), {})[row.config["when_missing"]] = row
    return found


def lacking(row: Row) -> str:
    """What the clips of a run lack, in words."""
    (lost,) = row.config["protocol"]["missing"]
    name = NAMES.get(lost["modality"], lost["modality"])
    return f"{100 * lost['rate']:.0f} % of {SIDES[lost['side']]} without {name}"


def dropout(study: Study, table: str) -> Cells:
    """Training on whole clips, and on clips that lack modalities, with the difference between them."""
    done = rows_of(study, "dropout")
    for row in done:
        whole = [
            r for r in done if r.varies["train_missing"] in ("none", ["none"]) and lacking(r) == lacking(row)
        ]
        auto = row.varies["train_missing"] == "auto"
        yield cell(
            study, table, lacking(row), "default" if auto else "whole clips", [row], whole if auto else []
        )


def table_of(name: str, corner: str, columns: Sequence[str], details: str | None = None) -> Table:
    return Table(
        name=name,
        corner=corner,
        details=details,
        columns=tuple(columns),
        digits=1,
        difference_from="see the page",
    )


PLACES = ("audio", "video", "both")
PASSAGES = [f"{a} -> {b}" for a in PLACES for b in PLACES]
LACK = "what is missing"
TABLES: Mapping[str, Sequence[tuple[Table, Callable[[Study, str], Cells]]]] = {
    "modality-table": [(table_of("space-modalities", "head", PASSAGES), modalities)],
    "missing": [
        (table_of("space-rates", "head", [f"{i / 10:g}" for i in range(11)]), rates),
        (table_of("space-fillers", LACK, RULES, details="head"), fillers),
        (table_of("space-law", "head", [*RULES[1:], CHOSEN], details="what lacks a modality"), law),
        (table_of("space-dropout", LACK, ["whole clips", "default"]), dropout),
    ],
}
"""The tables of each study and their makers."""


if __name__ == "__main__":
    main()
