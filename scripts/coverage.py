"""Simulates test sets and counts how often the intervals hold the truth, and how often a true null is rejected.

    python scripts/coverage.py --worlds 100 --episodes 300,1000        simulate, record the cells, write the page
    python scripts/coverage.py --over clips --classes 12 --shots 1 --episodes 300 --no-record      print a row
    python scripts/coverage.py page                                    write the page from the recorded cells

The cells are kept in docs/coverage.json, and docs/coverage.md is made from them.

A world is one test set. Its classes are unequal: they have 22 clips and up to some 200, and noise of their own size,
which is skewed and heavy-tailed (a centred gamma distribution of shape 0.5). Every clip has eight views with
independent noise, so that one head on one view and the same head on another are equal in distribution: their true
difference is 0. A world therefore gives eight intervals of one head, and four of pairs. Worlds of clips share the class
means (the same for all views) and the class sizes, and differ in their clips; worlds of classes differ in everything,
and each view has class means of its own.

A table has a row for each number of classes and shots, and a column for each number of episodes. A cell gives three
percentages: the coverage of the 95 % interval of one head, that of the interval of a pair, and the share of pairs whose
p-value is below .05.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
DATA = Path(__file__).resolve().parents[1] / "docs" / "coverage.json"
_CHUNK = 200


@dataclass(frozen=True)
class Classes:
    """The classes of a world: their means for each view [V, C, D], their noise [C], and their numbers of clips [C]."""

    mean: np.ndarray
    noise: np.ndarray
    clips: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of a table: what was simulated, and the shares over all worlds, in percent."""

    over: str
    """clips or classes."""
    classes: int
    shots: int
    episodes: int
    method: str
    worlds: int
    seed: int
    single: float
    """The coverage of the interval of one head."""
    paired: float
    """The coverage of the interval of a difference that is truly 0."""
    rejected: float
    """The share of pairs whose p-value is below .05."""
    without: float
    """The share of intervals that have no value."""

    @property
    def row(self) -> str:
        """The label of the cell's row."""
        return f"{self.over}, {self.classes}, {self.shots}"

    @property
    def place(self) -> tuple[object, ...]:
        """What tells this cell from every other."""
        return self.method, self.over, self.classes, self.shots, self.episodes

    @property
    def text(self) -> str:
        """Coverage of one head, coverage of a pair, and the share of true nulls rejected."""
        shares = f"{self.single:.1f} / {self.paired:.1f} / {self.rejected:.1f}"
        return shares if self.without == 0 else f"{shares} ({self.without:.3g} without a value)"


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    if given.step == "page":
        write_page()
        return
    overs = ("clips", "classes") if given.over == "both" else (given.over,)
    for over, classes, shots in itertools.product(overs, given.classes, given.shots):
        cells = simulate(
            over,
            classes=classes,
            shots=shots,
            episodes=given.episodes,
            worlds=given.worlds,
            method=given.method,
            seed=given.seed,
        )
        print(f"| {cells[0].row} | {' | '.join(cell.text for cell in cells)} |", flush=True)
        if given.record:
            record(cells)
            write_page()


def parser() -> argparse.ArgumentParser:
    """The options of this script."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("step", nargs="?", choices=("simulate", "page"), default="simulate")
    options.add_argument("--worlds", type=int, default=100)
    options.add_argument("--classes", type=numbers, default=[8, 12, 24, 64])
    options.add_argument("--shots", type=numbers, default=[1, 5])
    options.add_argument("--episodes", type=numbers, default=[300, 1000, 3000, 10_000])
    options.add_argument("--over", choices=("clips", "classes", "both"), default="both")
    options.add_argument("--method", default="protonet", help="a head that needs no training")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--record", action=argparse.BooleanOptionalAction, default=True)
    return options


def recorded() -> list[Cell]:
    """The recorded cells."""
    return [Cell(**row) for row in json.loads(DATA.read_text(encoding="utf-8"))] if DATA.is_file() else []


def record(cells: Sequence[Cell]) -> None:
    """Record cells, in place of older ones of the same place, sorted by place with one line each."""
    kept = {cell.place: cell for cell in (*recorded(), *cells)}
    lines = [json.dumps(asdict(cell)) for _, cell in sorted(kept.items(), key=lambda entry: str(entry[0]))]
    DATA.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def write_page() -> None:
    """Write the page of the recorded cells."""
    DATA.with_suffix(".md").write_text(page(recorded()), encoding="utf-8")


def page(cells: Sequence[Cell]) -> str:
    """The page of the documentation: a table for each method and number of worlds."""
    groups = sorted({(cell.method, cell.worlds) for cell in cells}, key=lambda g: (g[0] != "protonet", -g[1]))
    tables = [
        section([cell for cell in cells if (cell.method, cell.worlds) == group], *group) for group in groups
    ]
    high = sum(cell.rejected > 7 for cell in cells)
    low = [min(getattr(cell, name) for cell in cells) for name in ("single", "paired")]
    mean = np.mean([cell.rejected for cell in cells])
    return f"""<!-- Made by scripts/coverage.py from docs/coverage.json. -->
# Do the intervals hold?

Simulated test sets (5-way, {QUERIES} queries, {WIDTH} numbers a clip) have unequal, skewed and heavy-tailed classes
of {SMALLEST} to {LARGEST} clips. A row names what is drawn anew in each test set, the number of classes and the shots.
A cell gives, in percent, how often the 95 % interval of one head holds the truth / how often that of a pair of heads
that are equal in distribution holds 0 / how often such a pair's p-value is below .05. `scripts/coverage.py` has the
details, and [statistics.md](statistics.md) the formulas.

Of the {len(cells)} cells, {high} have more than 7 % of true nulls rejected (the mean of all is {mean:.1f} %). The
lowest coverage is {low[0]:.1f} % for one head and {low[1]:.1f} % for a pair. Standard errors are below each table. A
table of fewer test sets holds the first ones of the same rows, so that it shares their luck.

{chr(10).join(tables)}"""


def section(cells: Sequence[Cell], method: str, worlds: int) -> str:
    """A table of cells of one method and number of worlds, with its command and its standard errors."""
    columns = sorted({cell.episodes for cell in cells})
    rows: dict[tuple[str, int, int], dict[int, str]] = {}
    for cell in sorted(cells, key=lambda c: (c.over != "clips", c.classes, c.shots)):
        rows.setdefault((cell.over, cell.classes, cell.shots), {})[cell.episodes] = cell.text
    lines = [
        f"| over, classes, shots | {' | '.join(f'{count:,} episodes' for count in columns)} |",
        f"| --- |{' --- |' * len(columns)}",
    ]
    for (over, classes, shots), texts in rows.items():
        lines.append(
            f"| {over}, {classes}, {shots} | {' | '.join(texts.get(column, '–') for column in columns)} |"
        )
    command = f"--worlds {worlds} --episodes {','.join(map(str, columns))}"
    if method != "protonet":
        command += f" --method {method}"
    heads, pairs = worlds * len(VIEWS), worlds * len(VIEWS) // 2
    errors = [f"{100 * (0.95 * 0.05 / count) ** 0.5:.1f}" for count in (heads, pairs)]
    return f"""## {method}, {worlds} test sets a row

    python scripts/coverage.py {command}

{chr(10).join(lines)}

A cell stands for {heads} intervals of one head and {pairs} of a pair. Were these independent, the standard error of
95 % would be {errors[0]} and {errors[1]} points. The columns of a row share their test sets.
"""


def numbers(text: str) -> list[int]:
    """The whole numbers of a text such as ``1,5``."""
    return [int(part) for part in text.split(",")]


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
            over=over,
            classes=classes,
            shots=shots,
            episodes=count,
            method=method,
            worlds=worlds,
            seed=seed,
            single=percent(held[row]),
            paired=percent(pairs[row, ..., 0]),
            rejected=percent(pairs[row, ..., 1]),
            without=percent(np.isnan(held[row])),
        )
        for row, count in enumerate(episodes)
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


def percent(values: np.ndarray) -> float:
    """The mean of the values that are not NaN, in percent, with one digit; 0 where there is none."""
    known = values[~np.isnan(values.astype(float))]
    return round(100 * float(known.mean()), 1) if known.size else 0.0


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
