"""Measures the user's classifier on tasks drawn from a cache, and writes the figures of docs/results/classifier.json.

    python scripts/classifier.py --cache CACHE --dataset ave28 --tasks 60
    python scripts/classifier.py --cache CACHE --dataset demo --tasks 60 --parts fit,sets,unknown,suggest
    python scripts/classifier.py --parts latency --model MODEL --clips FOLDER

A task is one user: five novel classes, K examples of each, and further clips of these and of five other classes as
questions. Base classes are those of the data set's split. Intervals are over tasks (Student's t, 95 %); tasks share
clips, so that they hold for this set of clips.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import t as student

from fsmm.cache.bank import FeatureBank
from fsmm.runs.estimator import FewShotClassifier
from fsmm.runs.few_examples.auto_method import free_candidates, select, try_candidate, wilson
from fsmm.runs.few_examples.base_set import BaseSet
from fsmm.runs.few_examples.calibration import (
    calibrated,
    calibration_error,
    clips_needed,
    lac_quantile,
    lac_scores,
    lac_sets,
    probabilities,
)
from fsmm.runs.few_examples.classifier import make_classifier
from fsmm.runs.few_examples.examples import Examples
from fsmm.runs.few_examples.fit_request import FitSpec
from fsmm.runs.few_examples.fitted import FittedHead, HeadChoice
from fsmm.runs.few_examples.suggest import ENOUGH, doubtful_rows, joint_points, typical_rows, typicality
from fsmm.runs.few_examples.unknowns import Nearness, area_under_curve, threshold_by_base

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "results" / "classifier.json"
WAYS, QUESTIONS = 5, 12
LEVELS = (0.2, 0.1, 0.05)
BUDGETS = (1, 2, 5, 10)
PARTS = ("fit", "sets", "unknown", "suggest", "base")


@dataclass(frozen=True)
class Task:
    """One user's examples and questions; strangers are questions of no class."""

    examples: Examples
    label: torch.Tensor
    questions: Examples
    truth: np.ndarray
    strangers: Examples


class Drawer:
    """Draws tasks from the novel classes of a bank."""

    def __init__(self, bank: FeatureBank) -> None:
        self.clips = Examples.of_bank(bank)
        self.rows = [np.flatnonzero(bank.label.numpy() == c) for c in range(len(bank.class_names))]

    def tasks(self, count: int, shots: int, seed: int = 0) -> Iterator[Task]:
        chance = np.random.Generator(np.random.Philox(seed))
        for _ in range(count):
            drawn = chance.permutation(len(self.rows))[: 2 * WAYS]
            each = [chance.permutation(self.rows[c]) for c in drawn]
            known, others = each[:WAYS], each[WAYS:]
            asked = [own[shots : shots + QUESTIONS] for own in known]
            yield Task(
                examples=self.clips[np.concatenate([own[:shots] for own in known])],
                label=torch.arange(WAYS).repeat_interleave(shots),
                questions=self.clips[np.concatenate(asked)],
                truth=np.repeat(np.arange(WAYS), [len(own) for own in asked]),
                strangers=self.clips[np.concatenate([own[:QUESTIONS] for own in others])],
            )


def main() -> None:
    given = parser().parse_args()
    torch.set_num_threads(1)
    if given.parts == "latency":
        record(of_latency(given))
        return
    load = {"dataset": given.dataset, "words": None}
    bank = FeatureBank.load(given.cache, None, "novel", **load)
    drawer = Drawer(bank)
    figures: list[dict[str, Any]] = []
    for part in given.parts.split(","):
        found = {
            "fit": of_fit,
            "sets": of_sets,
            "unknown": of_unknown,
            "suggest": of_suggest,
            "base": of_base,
        }[part](drawer, given)
        for figure in found:
            print(
                figure["table"],
                figure["row"],
                figure["column"],
                figure["value"],
                figure["interval"],
                flush=True,
            )
        figures += found
        record(figures)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--cache", type=Path)
    options.add_argument("--dataset", default="")
    options.add_argument("--model", type=Path, help="a model of videos, for latency")
    options.add_argument("--clips", type=Path, help="a folder of videos, for latency")
    options.add_argument("--tasks", type=int, default=60)
    options.add_argument("--parts", default=",".join(PARTS))
    return options


def of_fit(drawer: Drawer, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What ``--method auto`` reaches, what it says of itself, and how well its probabilities are calibrated."""
    found = []
    for shots in (2, 5, 10):
        rows = [fit_once(task) for task in drawer.tasks(given.tasks, shots)]
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        row = f"{given.dataset}, {shots} examples a class"
        for name, values in columns.items():
            found.append(figure("classifier-fit", row, name, *mean_of(values), "%", given))
    return found


def fit_once(task: Task) -> dict[str, float]:
    names = list("abcde")
    choices = free_candidates(task.examples.modalities, ordered=True)
    fits = [FittedHead.untrained(choice, task.examples, task.label, names) for choice in choices]
    trials = [try_candidate(fit) for fit in fits]
    found = select(trials)
    logits = [fit.logits(task.questions).double().numpy() for fit in (fits[found.picked], fits[0])]
    right = [float((x.argmax(1) == task.truth).mean()) for x in logits]
    picked = trials[found.picked]
    heat = calibrated(picked.logits, picked.label)
    assert found.accuracy is not None
    assert found.interval is not None
    return {
        "auto": right[0],
        "minus ProtoNet-LF": right[0] - right[1],
        "expected minus true": found.accuracy - right[0],
        "interval holds": float(agree(found.accuracy, found.interval, right[0], len(task.truth))),
        "calibration error": calibration_error(probabilities(logits[0], heat.temperature), task.truth),
        "before": calibration_error(probabilities(logits[0], 1.0), task.truth),
    }


def agree(expected: float, interval: tuple[float, float], share: float, count: int) -> bool:
    """Whether an expected accuracy and the share of ``count`` questions differ by no more than both are unsure of.

    The questions are a sample, too, so that Newcombe's interval of a difference decides: it joins the interval of the
    expected accuracy with Wilson's of the share.
    """
    low, high = interval
    least, most = wilson(share, count)
    below, above = math.hypot(expected - low, most - share), math.hypot(high - expected, share - least)
    return -above <= expected - share <= below


def of_base(drawer: Drawer, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What ``--method auto`` gains from a base set, at five examples a class, and how long a fit takes."""
    widths = {m: s.x.shape[2] for m, s in drawer.clips.streams.items()}
    base = BaseSet.load(given.cache / given.dataset, {}, widths)
    rows, seconds = [], []
    for task in drawer.tasks(given.tasks, 5):
        right, took = [], []
        for known in (None, base):
            began = time.process_time()
            made = make_classifier(task.examples, task.label, list("abcde"), FitSpec(), base=known)
            took.append(time.process_time() - began)
            right.append(float((made.probabilities(task.questions).argmax(1) == task.truth).mean()))
        rows.append((right[1], right[1] - right[0]))
        seconds.append(took)
    row = f"{given.dataset}, 5 examples a class"
    return [
        figure("classifier-base", row, name, *mean_of(np.array([r[i] for r in rows])), "%", given)
        for i, name in enumerate(("auto with --base", "minus auto without"))
    ] + [
        figure("classifier-base", row, name, float(np.median(seconds, 0)[i]), None, "s", given)
        for i, name in enumerate(("seconds of a fit without", "seconds with --base"))
    ]


def of_sets(drawer: Drawer, given: argparse.Namespace) -> list[dict[str, Any]]:
    """How often sets hold the true class, calibrated by leave-one-out and by clips that were held back."""
    found = []
    for lost in (None, drawer.clips.modalities[-1]):
        for how in ("left out", "held back"):
            held: dict[float, list[float]] = {level: [] for level in LEVELS}
            size: dict[float, list[float]] = {level: [] for level in LEVELS}
            for task in drawer.tasks(given.tasks, 10):
                for level, (coverage, mean) in sets_once(task, how, lost).items():
                    held[level].append(coverage)
                    size[level].append(mean)
            row = f"{given.dataset}, {how}" + (f", questions without {lost}" if lost else "")
            for level in LEVELS:
                if held[level]:
                    name = f"{100 * (1 - level):g} % sets"
                    found.append(
                        figure("classifier-sets", row, name, *mean_of(np.array(held[level])), "%", given)
                    )
                    found.append(
                        figure(
                            "classifier-sets",
                            row,
                            f"classes in {name}",
                            float(np.mean(size[level])),
                            None,
                            "",
                            given,
                        )
                    )
    return found


def sets_once(task: Task, how: str, lost: str | None) -> dict[float, tuple[float, float]]:
    """Coverage and mean size by level: 10 examples a class, of which the held-back way keeps four to calibrate."""
    choice = HeadChoice(method="ridge", fusion="lf", modalities=tuple(task.examples.modalities))
    names = list("abcde")
    if how == "left out":
        fit = FittedHead.untrained(choice, task.examples, task.label, names)
        trial = try_candidate(fit)
        heat = calibrated(trial.logits, trial.label).temperature
        scores = lac_scores(probabilities(trial.logits, heat), trial.label)
    else:
        kept = np.arange(len(task.label)) % 10 < 6
        fit = FittedHead.untrained(choice, task.examples[kept], task.label[torch.from_numpy(kept)], names)
        trial = try_candidate(fit)
        heat = calibrated(trial.logits, trial.label).temperature
        logits = fit.logits(task.examples[~kept]).double().numpy()
        scores = lac_scores(probabilities(logits, heat), task.label.numpy()[~kept])
    questions = without(task.questions, lost)
    p = probabilities(fit.logits(questions).double().numpy(), heat)
    found = {}
    for level in LEVELS:
        if len(scores) >= clips_needed(level):
            sets = lac_sets(p, lac_quantile(scores, level))
            found[level] = (
                float(sets[np.arange(len(sets)), task.truth].mean()),
                float(sets.sum(1).mean()),
            )
    return found


def of_unknown(drawer: Drawer, given: argparse.Namespace) -> list[dict[str, Any]]:
    """How well clips of no class are told from the others, and what the threshold of base classes lets through."""
    widths = {m: s.x.shape[2] for m, s in drawer.clips.streams.items()}
    base = BaseSet.load(given.cache / given.dataset, {}, widths)
    found = []
    for shots in (1, 5):
        threshold = threshold_by_base(base.base, ways=WAYS, shots=[shots] * WAYS)
        for lost in (None, drawer.clips.modalities[-1]):
            rows = []
            for task in drawer.tasks(given.tasks, shots):
                known, strange = without(task.questions, lost), without(task.strangers, lost)
                row = {}
                for name, means in (("without a base set", None), ("with a base set", base.means())):
                    near = Nearness(task.examples, task.label, WAYS, means)
                    row[name] = area_under_curve(near.of(known), near.of(strange))
                edge = threshold.at(0.1)
                row["known called unknown"] = float((near.of(known) < edge).mean())
                row["unknown called unknown"] = float((near.of(strange) < edge).mean())
                rows.append(row)
            label = f"{given.dataset}, {shots} example{'s' if shots > 1 else ''} a class"
            label += f", questions without {lost}" if lost else ""
            for name in rows[0]:
                values = np.array([row[name] for row in rows])
                found.append(figure("classifier-unknown", label, name, *mean_of(values), "%", given))
    return found


def of_suggest(drawer: Drawer, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What suggested clips are worth against clips drawn at random, round after round, on the same pool."""
    names = ("typical", "doubt", "auto")
    gains: dict[str, list[np.ndarray]] = {name: [] for name in names}
    random: list[np.ndarray] = []
    pool_size = min(24, min(len(rows) for rows in drawer.rows) - 8)
    for number, task in enumerate(drawer.tasks(given.tasks, pool_size)):
        drawn = [rounds_of("random", task, seed=100 * number + i) for i in range(4)]
        random.append(np.mean(drawn, 0))
        for name in names:
            gains[name].append(rounds_of(name, task, seed=number) - random[-1])
    found = []
    for place, budget in enumerate(BUDGETS):
        column = f"{budget} label{'s' if budget > 1 else ''} a class"
        values = np.array(random)[:, place]
        found.append(
            figure("classifier-suggest", f"{given.dataset}, random", column, *mean_of(values), "%", given)
        )
        for name in names:
            values = np.array(gains[name])[:, place]
            row = f"{given.dataset}, {name} minus random"
            found.append(figure("classifier-suggest", row, column, *mean_of(values), "%", given))
    return found


def rounds_of(strategy: str, task: Task, seed: int) -> np.ndarray:
    """The accuracy [budgets] on the questions after each round of labels; classes without a label count as missed."""
    chance = np.random.Generator(np.random.Philox(seed))
    label, held = task.label.numpy(), np.zeros(0, np.int64)
    found = []
    for budget in BUDGETS:
        more = budget * WAYS - len(held)
        rest = np.setdiff1d(np.arange(len(label)), held)
        if strategy == "random":
            new = chance.permutation(rest)[:more]
        else:
            new = rest[suggested(strategy, task, rest, held, more)]
        held = np.concatenate([held, new])
        fit, classes = learned(task, held)
        decided = (
            classes[fit.logits(task.questions).argmax(1).numpy()] if fit else classes[[0] * len(task.truth)]
        )
        found.append(float((decided == task.truth).mean()))
    return np.array(found)


def suggested(strategy: str, task: Task, rest: np.ndarray, held: np.ndarray, more: int) -> list[int]:
    points = joint_points(task.examples[np.concatenate([rest, held])])
    typical = typicality(points)
    fit, _ = learned(task, held) if len(held) else (None, None)
    enough = len(held) >= ENOUGH * WAYS
    if fit is None or strategy == "typical" or (strategy == "auto" and not enough):
        return typical_rows(points, len(rest), more, typical)
    trial = try_candidate(fit)
    heat = calibrated(trial.logits, trial.label).temperature
    p = probabilities(fit.logits(task.examples[rest]).double().numpy(), heat)
    doubt = -(p * np.log(p + 1e-12)).sum(1)
    return doubtful_rows(points[: len(rest)], doubt, typical[: len(rest)], count=more)


def learned(task: Task, held: np.ndarray) -> tuple[FittedHead | None, np.ndarray]:
    """A head over the labelled clips, and the class of each of its outputs."""
    classes, label = np.unique(task.label.numpy()[held], return_inverse=True)
    if len(classes) < 2:
        return None, classes
    choice = HeadChoice(method="ridge", fusion="lf", modalities=tuple(task.examples.modalities))
    names = [str(c) for c in classes]
    return FittedHead.untrained(choice, task.examples[held], torch.from_numpy(label), names), classes


def of_latency(given: argparse.Namespace) -> list[dict[str, Any]]:
    """The milliseconds of one answer of a long-lived classifier, for each clip of a folder in turn."""
    clips = sorted(path for path in given.clips.rglob("*") if path.is_file())
    began = time.perf_counter()
    held = FewShotClassifier.open(given.model, live=True, device="cpu")
    held.predict([str(clips[0])])
    first = time.perf_counter() - began
    features = held.examples_of([str(clips[0])])
    whole = [_milliseconds(lambda clip=clip: held.predict([str(clip)])) for clip in clips]
    head = [_milliseconds(lambda: held.classifier_.probabilities(features)) for _ in range(30)]
    given.tasks = len(clips)
    found = []
    for name, value in (
        ("open and first answer", 1000 * first),
        ("later answers, median", float(np.median(whole))),
        ("later answers, 90 % quantile", float(np.quantile(whole, 0.9))),
        ("of these, the head", float(np.median(head))),
    ):
        row = figure("classifier-latency", "one clip", name, value, None, "ms", given)
        command = "python scripts/classifier.py --parts latency --model MODEL --clips FOLDER"
        found.append({**row, "command": command})
        print(name, round(value, 1), "ms")
    return found


def _milliseconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - began)


def without(clips: Examples, lost: str | None) -> Examples:
    """The clips without a modality."""
    if lost is None:
        return clips
    streams = dict(clips.streams)
    stream = streams[lost]
    gone = torch.zeros_like(stream.present)
    streams[lost] = type(stream)(torch.zeros_like(stream.x), gone, gone.long())
    return Examples(streams)


def mean_of(values: np.ndarray) -> tuple[float, float]:
    """The mean in per cent and its 95 % half width over tasks."""
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return 100 * float(values.mean()), 100 * float(student.ppf(0.975, len(values) - 1)) * error


def figure(
    table: str, row: str, column: str, value: float, half: float | None, unit: str, given: argparse.Namespace
) -> dict[str, Any]:
    command = f"python scripts/classifier.py --cache CACHE --dataset {given.dataset} --tasks {given.tasks}"
    return {
        "page": "classifier", "table": table, "row": row, "column": column, "part": None, "details": None,
        "value": round(value, 2), "unit": unit, "interval": None if half is None else round(half, 2),
        "interval_over": None if half is None else "tasks", "difference": None, "difference_widths": None,
        "episodes": given.tasks, "command": command, "commit": commit(), "note": None, "run": None,
    }  # fmt: skip


def commit() -> str | None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def record(figures: Sequence[dict[str, Any]]) -> None:
    """Put the figures in the place of those of the same tables and data set."""
    data = json.loads(DATA.read_text("utf-8")) if DATA.is_file() else {"tables": [], "rows": []}
    made = {(row["table"], row["row"], row["column"]) for row in figures}
    rows = [row for row in data["rows"] if (row["table"], row["row"], row["column"]) not in made]
    rows += figures
    tables = []
    for name in dict.fromkeys(row["table"] for row in rows):
        columns = list(dict.fromkeys(row["column"] for row in rows if row["table"] == name))
        tables.append(
            {
                "name": name,
                "corner": "data, task",
                "details": None,
                "columns": columns,
                "digits": 1,
                "difference_from": None,
                "named_parts": False,
                "show_units": False,
            }
        )
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    heads = ",\n".join(json.dumps(table, ensure_ascii=False) for table in tables)
    DATA.write_text(f'{{\n"tables": [\n{heads}\n],\n"rows": [\n{lines}\n]\n}}\n', "utf-8")


if __name__ == "__main__":
    sys.exit(main())
