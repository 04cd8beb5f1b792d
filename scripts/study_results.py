"""The runs of a study beside the figures of docs/results that they make: each block is the table of its name.

    python scripts/study_results.py STUDY             how far each table's figures lie from those that are recorded
    python scripts/study_results.py STUDY --record    write them into docs/results/*.json instead of the recorded ones

STUDY is the folder of `fsmm sweep examples/results.yaml`, or of another study of ``FILES``. A row of the study belongs
to the figure whose row is the variant's label, and whose column and part say its modalities, shots, label set, class
split or missing rate; a figure without a class split is the mean over those of the study. A difference is that from the
row called protonet (or complete), and of certainty weights that from equal ones, on the same episodes, with half widths
over draws, clips and classes (scripts/figures/paired.py). Rows that are not done are left out.
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

MEASURES = {"S": "seen", "U": "unseen", "HM": "harmonic", "mAP": "map"}
MEASURES |= {"micro F1": "micro_f1", "macro F1": "macro_f1"}
"""The keys of metrics.json by the parts of a cell that hold them."""
BASES = ("protonet", "ProtoNet", "complete")
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
            mine = found.setdefault(number, Found(block=row.block, episodes=metrics["episodes"]))
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
    return [row.block, f"{block}-{shots}-shot", *(["demo-fusion"] if row.block == "demo-two" else [])]


def belongs(figure: Figure, row: Row) -> bool:
    """Whether a row of the study makes this figure of its table."""
    if figure.row not in rows_of(row) or figure.column not in columns_of(row):
        return False
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
    lost = [missing["modality"] for missing in row.config["protocol"].get("missing", ())]
    return {label, joined, *(lost or names if row.block == "missing-sweep" else ())}


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
    found = {"result", "accuracy", f"{shots}-shot", f"{joined}, {shots}-shot", str(protocol["label_set"])}
    if joined == "frame+audio":
        found.add(f"both, {shots}-shot")
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
    found = metrics.get(MEASURES.get(figure.part or "", "accuracy"))
    return None if found is None else float(found)


def half_width_of(figure: Figure, metrics: Mapping[str, Any]) -> float | None:
    """The half width of an accuracy over what the figure's is over, in points; None where it has none."""
    is_accuracy = figure.part not in MEASURES and not figure.column.endswith(" branch")
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
    same = ("streams", "protocol", "train_seed")
    if base.block != row.block or base.key == row.key or any(base.config[k] != row.config[k] for k in same):
        return False
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
