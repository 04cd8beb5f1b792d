"""Simulates test sets and counts how often the intervals hold the truth, and how often a true null is rejected.

    python scripts/coverage.py --worlds 100 --out docs/coverage.md      simulate, and write the page
    python scripts/coverage.py --over clips --classes 12 --shots 1 --episodes 300

A world is one test set. Its classes are unequal: they have 22 clips and up to some 200, and noise of their own size,
which is skewed and heavy-tailed (a centred gamma distribution of shape 0.5). Every clip has eight views with
independent noise, so that one head on one view and the same head on another are equal in distribution: their true
difference is 0. A world therefore gives eight intervals of one head, and four of pairs. Worlds of clips share the class
means (the same for all views) and the class sizes, and differ in their clips; worlds of classes differ in everything,
and each view has class means of its own.

The table has a row for each number of classes and shots, and a column for each number of episodes. A cell gives three
percentages: the coverage of the 95 % interval of one head, that of the interval of a pair, and the share of pairs whose
p-value is below .05.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fsmm.cache.bank import FeatureBank
from fsmm.cache.schema import StreamName
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import find
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.scoring.plan import scorer
from fsmm.runs.evaluate import evaluate
from fsmm.runs.over_clips import clip_uncertainty
from fsmm.runs.redraw import Source
from fsmm.runs.statistics import Draws, Uncertainty, class_uncertainty

VIEWS = tuple(f"view{number}" for number in range(8))
WIDTH = 16
SPREAD = 0.6
"""The standard deviation of class means, in units of the median class's noise."""
SMALLEST, LARGEST = 22, 200
"""The least and the largest number of clips of a class."""
QUERIES = 15
TRUTH_EPISODES = 20_000
_CHUNK = 50


@dataclass(frozen=True)
class Classes:
    """The classes of a world: their means for each view [V, C, D], their noise [C], and their numbers of clips [C]."""

    mean: np.ndarray
    noise: np.ndarray
    clips: np.ndarray


@dataclass(frozen=True)
class Cell:
    """One cell of the table: the shape of its worlds, and the shares over all worlds."""

    single: float
    """The coverage of the interval of one head."""
    paired: float
    """The coverage of the interval of a difference that is truly 0."""
    rejected: float
    """The share of pairs whose p-value is below .05."""
    without: float
    """The share of intervals that have no value."""


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--worlds", type=int, default=100)
    options.add_argument("--classes", type=numbers, default=[8, 12, 24, 64])
    options.add_argument("--shots", type=numbers, default=[1, 5])
    options.add_argument("--episodes", type=numbers, default=[300, 1000, 3000, 10_000])
    options.add_argument("--over", choices=("clips", "classes", "both"), default="both")
    options.add_argument("--method", default="protonet", help="a head that needs no training")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path, help="the page to write; else the table is printed")
    given = options.parse_args(arguments)
    lines = []
    for line in table(given):
        print(line, flush=True)
        lines.append(line)
    if given.out:
        given.out.write_text(page(given, lines), encoding="utf-8")


def table(given: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, each as soon as it is known."""
    yield f"| over, classes, shots | {' | '.join(f'{count:,} episodes' for count in given.episodes)} |"
    yield f"| --- |{' --- |' * len(given.episodes)}"
    for over in ("clips", "classes") if given.over == "both" else (given.over,):
        for classes, shots in itertools.product(given.classes, given.shots):
            cells = simulate(
                over,
                classes=classes,
                shots=shots,
                episodes=given.episodes,
                worlds=given.worlds,
                method=given.method,
                seed=given.seed,
            )
            yield f"| {over}, {classes}, {shots} | {' | '.join(map(text, cells))} |"


def page(given: argparse.Namespace, lines: Sequence[str]) -> str:
    """The page of the documentation with this table."""
    heads, pairs = given.worlds * len(VIEWS), given.worlds * len(VIEWS) // 2
    errors = [f"{100 * (0.95 * 0.05 / count) ** 0.5:.1f}" for count in (heads, pairs)]
    rows = "\n".join(lines)
    return f"""<!-- Made by scripts/coverage.py: edit that. -->
# Do the intervals hold?

Simulated test sets (5-way, {QUERIES} queries, {WIDTH} numbers a clip, {given.method}) have unequal, skewed and
heavy-tailed classes of {SMALLEST} to {LARGEST} clips. A cell gives, in percent, how often the 95 % interval of one head
holds the truth / how often that of a pair of heads that are equal in distribution holds 0 / how often such a pair's
p-value is below .05. [What the intervals mean](statistics.md) is a page of its own.

    python scripts/coverage.py --worlds {given.worlds} --out docs/coverage.md

{rows}

Each cell stands for {given.worlds} test sets with {heads} heads and {pairs} pairs. Were these independent, the
standard error of 95 % would be {errors[0]} and {errors[1]} points. The columns of a row share their test sets.
"""


def numbers(text: str) -> list[int]:
    """The whole numbers of a text such as ``1,5``."""
    return [int(part) for part in text.split(",")]


def text(cell: Cell) -> str:
    """Coverage of one head, coverage of a pair, and the share of true nulls rejected, in percent."""
    shares = " / ".join(f"{100 * x:.1f}" for x in (cell.single, cell.paired, cell.rejected))
    return shares if cell.without == 0 else f"{shares} ({100 * cell.without:.3g} without a value)"


def simulate(
    over: str,
    *,
    classes: int,
    shots: int,
    episodes: Sequence[int],
    worlds: int,
    method: str = "protonet",
    seed: int = 0,
) -> list[Cell]:
    """One cell for each number of episodes, which are the first ones of the same worlds.

    over: clips or classes. Intervals without a value are left out of the coverage and counted.
    """
    rng = np.random.default_rng([seed, classes, shots, over == "clips"])
    protocol = Protocol(k_shot=shots, n_query=QUERIES)
    fixed = draw_classes(rng, classes, same=True)
    truth = true_accuracy(rng, fixed if over == "clips" else None, protocol, method)
    held = np.zeros((len(episodes), worlds, len(VIEWS)))
    pairs = np.zeros((len(episodes), worlds, len(VIEWS) // 2, 2))
    for world in range(worlds):
        bank = bank_of(rng, fixed if over == "clips" else draw_classes(rng, classes, same=False))
        # Worlds with the same episodes would share the luck of the draws, which would look like a bias.
        task = replace(protocol, seed=world + 1)
        every = Source.of(bank, task).draws(0, max(episodes))
        right = outcomes_of(bank, task, max(episodes), method)
        for row, count in enumerate(episodes):
            draws, found = every[:count], [of[:count] for of in right]
            for view, outcome in enumerate(found):
                sure = uncertainty(over, outcome, draws, method)
                held[row, world, view] = holds(sure, float(outcome.mean()) - truth)
            for number in range(len(VIEWS) // 2):
                difference = found[2 * number] - found[2 * number + 1]
                sure = uncertainty(over, difference, draws, method)
                mean = float(difference.mean())
                p = np.nan if sure.reason else sure.p_value(mean) < 0.05
                pairs[row, world, number] = holds(sure, mean), p
    return [
        Cell(
            single=float(np.nanmean(held[row])),
            paired=float(np.nanmean(pairs[row, ..., 0])),
            rejected=float(np.nanmean(pairs[row, ..., 1])),
            without=float(np.isnan(held[row]).mean()),
        )
        for row in range(len(episodes))
    ]


def outcomes_of(bank: FeatureBank, protocol: Protocol, episodes: int, method: str) -> list[np.ndarray]:
    """The outcome of every query, int8 [E, Q], of the method on each view; the episodes are drawn once for all."""
    score = []
    for view in VIEWS:
        alone = bank.select([view])
        head = build_head(method, inputs_of(alone)).eval()
        score.append(scorer(head, EpisodeTest(bank=alone, protocol=protocol, episodes=episodes)))
    right: list[list[np.ndarray]] = [[] for _ in VIEWS]
    with torch.no_grad():
        for index in Sampler(bank, protocol).batches(0, episodes, _CHUNK):
            for of_view, found in zip(score, right):
                found.append((of_view(index).argmax(-1) == index.query_label).numpy().astype(np.int8))
    return [np.concatenate(found) for found in right]


def holds(sure: Uncertainty, error: float) -> float:
    """1.0 where the 95 % interval holds a mean with this error, 0.0 where it does not, NaN without an interval."""
    return np.nan if sure.reason else float(abs(error) <= sure.half_width())


def uncertainty(over: str, outcome: np.ndarray, draws: Draws, method: str) -> Uncertainty:
    """The uncertainty of the mean of outcomes [E, Q], as a run and a comparison take it."""
    values = outcome.mean(1, dtype=np.float64)
    clips = clip_uncertainty(outcome, draws, transductive=find(method)[0].transductive)
    if over == "clips":
        return clips
    return class_uncertainty(values, draws, max(clips.variance - float(values.var()) / len(values), 0.0))


def draw_classes(rng: np.random.Generator, classes: int, *, same: bool) -> Classes:
    """Fresh classes; same: whether all views have the same means."""
    mean = SPREAD * rng.normal(size=(len(VIEWS), classes, WIDTH))
    if same:
        mean[1:] = mean[0]
    clips = np.minimum(SMALLEST + (12 * rng.lognormal(size=classes)).astype(int), LARGEST)
    return Classes(mean=mean, noise=rng.lognormal(sigma=0.25, size=classes), clips=clips)


def bank_of(rng: np.random.Generator, classes: Classes) -> FeatureBank:
    """Fresh clips of the classes, with a view for each modality."""
    label = np.repeat(np.arange(len(classes.clips)), classes.clips)
    n = len(label)
    tables = {}
    for view, mean in zip(VIEWS, classes.mean):
        noise = np.sqrt(2) * (rng.gamma(0.5, 1.0, (n, WIDTH)) - 0.5) * classes.noise[label, None]
        x = torch.from_numpy((mean[label] + noise).astype(np.float32))[:, None]
        tables[view] = TensorTable(x, torch.ones(n, dtype=torch.int64), torch.ones(n).bool())
    return FeatureBank(
        dataset="simulated",
        split="novel",
        label_set="class",
        class_split="default",
        streams={view: StreamName(view, "simulated") for view in VIEWS},
        tables=tables,
        label=torch.from_numpy(label),
        class_names=[str(c) for c in range(len(classes.clips))],
        class_id=torch.arange(len(classes.clips)),
        clip_row=np.arange(n),
    )


def true_accuracy(rng: np.random.Generator, fixed: Classes | None, protocol: Protocol, method: str) -> float:
    """The accuracy on 2,000 fresh clips of each of these classes, or on 1,500 fresh classes."""
    many = draw_classes(rng, 1500, same=False) if fixed is None else fixed
    size = 60 if fixed is None else 2000
    large = Classes(mean=many.mean, noise=many.noise, clips=np.full(len(many.clips), size))
    bank = bank_of(rng, large)
    few = [bank.select([view]) for view in VIEWS[:2]]
    return float(
        np.mean(
            [
                evaluate(build_head(method, inputs_of(alone)), alone, protocol, TRUTH_EPISODES // 2).mean
                for alone in few
            ]
        )
    )


if __name__ == "__main__":
    main()
