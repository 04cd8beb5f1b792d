"""The runs of a study beside the figures of docs/results that they make: each block is the table of its name.

    python scripts/study_results.py STUDY             how far each table's figures lie from those that are recorded
    python scripts/study_results.py STUDY --record    write them into docs/results/*.json instead of the recorded ones

STUDY is the folder of `fsmm sweep examples/results.yaml`, or of another study of ``FILES``. The studies that it
includes under a name have scripts of their own (questions.py, frontier.py, modality_tables.py, study_table.py). A row
of the study belongs to the figure whose row is the variant's label, and whose column and part say its modalities,
shots, label set, class split or missing rate; a figure without a class split is the mean over those of the study. A
difference is that from the row called protonet (or complete, or the float encoder), of certainty weights that from
equal ones, and of a filler that from the default, on the same episodes, with half widths over draws, clips and classes
(scripts/figures/paired.py). Rows that are not done are left out.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from figures.data import ROOT, UNKNOWN, Data, Figure, read_file, write_file
from figures.paired import Difference, difference_of_rows, mean_difference
from figures.record import commit_of

from fsmm.studies.grid.store import Row, Study, read_study

MEASURES = {"S": "seen", "U": "unseen", "HM": "harmonic", "mAP": "map", "unseen alone": "unseen_alone"}
MEASURES |= {"micro F1": "micro_f1", "macro F1": "macro_f1"}
"""The keys of metrics.json by the parts of a cell, or the columns, that hold them."""
GENERALISED = ("S", "U", "HM", "unseen alone")
"""The columns of the tables whose names begin with "generalised"."""
RANKS = ("R@1", "R@10", "mAP")
"""The columns of the table of clips that are looked up."""
SIDES = {"both": "all clips", "query": "the queries", "support": "the supports"}
"""The words of a row for the side whose clips lack a modality."""
BASES = ("protonet", "ProtoNet", "complete", "efficientnet-lite0")
"""The labels of the rows from which differences are taken."""
FILES = {"results": "examples/results.yaml", "utd-mhad": "examples/utd_mhad.yaml"}
"""The files of the studies that make tables, by their names."""
INTERVALS = {"draws": "ci95", "clips": "ci95_clips", "classes": "ci95_classes"}
"""The keys of metrics.json by what the half width of an accuracy is over."""
_TRAININGS = {0: "first", 1: "second"}
"""The parts of a cell that has two trainings, by their seeds."""
WEIGHTS = {"true": "certainty weights", "false": "equal weights"}


@dataclass
class Found:
    """What the study says of a figure: a value, its half width and a difference for each class split."""

    values: list[float] = field(default_factory=list)
    widths: list[float | None] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    block: str = ""
    episodes: int = 0
    row: str = ""


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("study", type=Path, help="the study's folder")
    options.add_argument("--record", action="store_true", help="write the figures into docs/results")
    given = options.parse_args()
    study = read_study(given.study)
    for path in sorted((ROOT / "docs" / "results").glob("*.json")):
        data = read_file(path)
        found = figures_of(study, data)
        for table in data.tables:
            report(table, data, found)
        if given.record and found:
            record(data, found, FILES[study.name])
            write_file(path, data)


def figures_of(study: Study, data: Data) -> dict[int, Found]:
    """What the study says of the figures of a page, by their numbers."""
    found: dict[int, Found] = {}
    for row in study.done:
        tables = tables_of(row)
        metrics = study.metrics(row)
        pair: Difference | None = None
        for number, figure in enumerate(data.figures):
            if figure.table not in tables or not belongs(figure, row):
                continue
            value = value_of(figure, metrics)
            if value is None:
                continue
            named = named_rule(figure, metrics)
            mine = found.setdefault(number, Found(block=row.block, episodes=metrics["episodes"], row=named))
            mine.values.append(100 * value)
            mine.widths.append(half_width_of(figure, metrics))
            if figure.difference is not None or figure.value is None:
                pair = pair or difference_of(study, row)
                if pair is not None:
                    mine.differences.append(pair)
    return found


def tables_of(row: Row) -> list[str]:
    """The tables that a row's block makes; AMFAR's have one for each number of shots."""
    block = row.block.removesuffix("-missing").removesuffix("-branches")
    shots = row.config["protocol"]["k_shot"]
    return [row.block, f"{block}-{shots}-shot", *_MORE_TABLES.get(row.block, ())]


_MORE_TABLES = {"demo-two": ["demo-fusion"], "ave28-protonet": ["ave28-intervals"]}


def belongs(figure: Figure, row: Row) -> bool:
    """Whether a row of the study makes this figure of its table."""
    if rule_left_out(figure) not in rows_of(row) or figure.column not in columns_of(row):
        return False
    if row.block == "missing-ave28":
        return figure.details == row.varies["variant"]
    if figure.details and "--method" in figure.details:
        return f"--method {row.config['method']} " in f"{figure.details.strip('`')} "
    split = row.config["protocol"]["class_split"]
    ami = WEIGHTS.get(str(row.varies.get("settings.ami")))
    parts = {None, "mean", split, ami, *MEASURES, _TRAININGS.get(row.varies.get("train_seed"))}
    if figure.table.startswith("amfar-") and not figure.column.endswith(" branch"):
        parts = {ami}
    return figure.part in parts


def rows_of(row: Row) -> set[str]:
    """The texts that a figure's row may have for a row of the study."""
    names = modalities_of(row)
    joined = "both (EC)" if len(names) > 1 else names[0]
    label = str(row.varies.get("variant", row.config["method"]))
    for place, name in zip(("first", "second"), names):
        label = label.replace(f"{place} modality", name)
    protocol = row.config["protocol"]
    lost = protocol.get("missing", ())
    if row.block == "missing-ave28":
        return {f"half of {SIDES[each['side']]} without {each['modality']}" for each in lost}
    if row.block == "space-retrieval":
        passages = {f"{one} -> {other}" for one in names for other in names if one != other}
        return {"words -> clips", *passages}
    if row.block.startswith("generalised"):
        rule, shots = row.config.get("seen_unseen", "auto"), protocol["k_shot"]
        rule = _RULES.get(rule, rule)
        return {f"{label}, {shots}-shot; {rule}" if shots else f"{label}; {rule}"}
    if row.block == "missing-sweep":
        return {label, joined, *([each["modality"] for each in lost] or names)}
    return {label, joined, *(INTERVAL_ROWS if row.block == "ave28-protonet" else ())}


INTERVAL_ROWS = ("episode draws", "clips", "classes")
"""The rows of the table of a run's kinds of interval."""
_RULES = {"val": "bias, val classes"}


def rule_left_out(figure: Figure) -> str:
    """The row of a figure without the rule that base classes have chosen, which only the run knows.

    Its row says that rule behind "auto: ".
    """
    head, auto, _ = figure.row.partition("; auto: ")
    return f"{head}; auto" if auto and figure.table.startswith("generalised") else figure.row


def named_rule(figure: Figure, metrics: Mapping[str, Any]) -> str:
    """The row of a figure with the rule that base classes chose in a run; any other row stays as it is."""
    head = rule_left_out(figure)
    return figure.row if head == figure.row else f"{head}: {metrics['seen_unseen']['kind']}"


def columns_of(row: Row) -> set[str]:
    """The texts that a figure's column may have for a row of the study."""
    protocol, names = row.config["protocol"], modalities_of(row)
    shots, joined = protocol["k_shot"], "+".join(names)
    noise = [f"noisy {each['modality']}" for each in protocol.get("noisy", ())]
    lost = protocol.get("missing", ())
    changed = [*noise, *(f"missing {each['modality']}" for each in lost)]
    if row.block.startswith("amfar-"):
        return (
            {f"{name} branch" for name in names}
            if row.block.endswith("branches")
            else {*changed} or {"clean"}
        )
    if row.block.startswith("generalised"):
        return {*GENERALISED}
    if row.block == "space-retrieval":
        return {*RANKS}
    if row.block == "missing-ave28":
        return {row.config["when_missing"]}
    if row.block == "demo-int8":
        return {f"{protocol['label_set']}, {shots} shot{'s' if shots > 1 else ''}"}
    found = {"result", "accuracy", f"{shots}-shot", f"{joined}, {shots}-shot", str(protocol["label_set"])}
    if joined == "frame+audio":
        found |= {f"both, {shots}-shot", f"{protocol['class_split']}, {shots}-shot, both"}
    if row.block == "missing-sweep":
        found = {f"{each['rate']:g}" for each in lost} or {"0"}
    return found


def modalities_of(row: Row) -> list[str]:
    """The modalities of a row in the order of the tables: frame, flow, audio, then others by name."""
    names = sorted(stream.partition("/")[0] for stream in row.config["streams"] or ())
    first = ("frame", "flow", "audio")
    return sorted(names, key=lambda name: first.index(name) if name in first else len(first))


def value_of(figure: Figure, metrics: Mapping[str, Any]) -> float | None:
    """The value of a figure in 0..1; None where the run does not have it."""
    if figure.column.endswith(" branch"):
        alone = metrics.get("reliability", {}).get("modalities", {})
        name = figure.column.removesuffix(" branch")
        return alone[name]["accuracy"] if name in alone else None
    if figure.column in RANKS:
        return float(metrics["retrieval"][figure.row][figure.column])
    measure = MEASURES.get(figure.part or "") or MEASURES.get(figure.column, "accuracy")
    found = metrics.get(measure)
    return None if found is None else float(found)


def half_width_of(figure: Figure, metrics: Mapping[str, Any]) -> float | None:
    """The half width of an accuracy over what the figure's is over, in points; None where it has none."""
    others = figure.part in MEASURES or figure.column in {*MEASURES, *RANKS} - {"HM"}
    is_accuracy = not others and not figure.column.endswith(" branch")
    if figure.interval_over not in INTERVALS or not is_accuracy:
        return None
    width = metrics.get(INTERVALS[figure.interval_over])
    return None if width is None else 100 * float(width)


def difference_of(study: Study, row: Row) -> Difference | None:
    """The difference of a row from its block's base on the same episodes."""
    done = {other.key for other in study.done}
    for base in study.rows:
        if base.key in done and is_base(base, row):
            return difference_of_rows(study, [row], [base])
    return None


def is_base(base: Row, row: Row) -> bool:
    """Whether a row's difference is taken from this one: the block's base, or the same head with equal weights."""
    same = ("protocol", "train_seed", *(() if row.block == "demo-int8" else ("streams",)))
    if base.block != row.block or base.key == row.key or any(base.config[k] != row.config[k] for k in same):
        return False
    if row.block == "missing-ave28":
        is_default = base.varies["when_missing"] == "auto"
        return is_default and base.varies["variant"] == row.varies["variant"]
    if "settings.ami" in row.varies:
        weights = row.varies["settings.ami"], base.varies["settings.ami"]
        return weights == ("true", "false") and base.varies["variant"] == row.varies["variant"]
    return base.varies.get("variant") in BASES


def report(table: str, data: Data, found: Mapping[int, Found]) -> None:
    """Print how far the study's figures of a table lie from the recorded ones."""
    mine = [number for number in found if data.figures[number].table == table]
    if not mine:
        return
    of = sum(figure.table == table for figure in data.figures)
    apart = [
        (abs(float(np.mean(found[n].values)) - value), data.figures[n])
        for n in mine
        if (value := data.figures[n].value) is not None
    ]
    text = f"{table}: {len(mine)} of {of} figures"
    if apart:
        most, figure = max(apart, key=lambda pair: pair[0])
        text += f"; the largest change is {most:.2f} points ({figure.row}, {figure.column}, {figure.part or 'all'})"
    print(text)


def record(data: Data, found: Mapping[int, Found], file: str) -> None:
    """Put what the study of ``file`` says in place of the recorded figures."""
    commit = commit_of(ROOT, dirty=False)
    for number, mine in found.items():
        figure = data.figures[number]
        mean = mean_difference(mine.differences) if mine.differences else None
        widths = [width for width in mine.widths if width is not None]
        # One run has its own interval; that of a mean over class splits is not known.
        interval = round(widths[0], 3) if len(widths) == len(mine.values) == 1 else None
        words = ["fsmm", "sweep", file, "--cache", "CACHE", "--only", mine.block]
        data.figures[number] = replace(
            figure,
            row=mine.row,
            value=round(float(np.mean(mine.values)), 3),
            interval=interval,
            interval_over=None if interval is None else figure.interval_over,
            difference=None if mean is None else round(mean.points, 3),
            difference_widths=UNKNOWN if mean is None else mean.widths.rounded(3),
            episodes=mine.episodes,
            command=shlex.join(words),
            commit=commit,
        )


if __name__ == "__main__":
    main()
