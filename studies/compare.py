"""Comparing runs in pairs on the episodes that they share, by difference, interval and corrected p-value."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..runs.store import load_run

# Episode i of one run is episode i of another only where these values agree.
_SAME = (
    "dataset",
    "fingerprint",
    "protocol.n_way",
    "protocol.k_shot",
    "protocol.n_query",
    "protocol.seed",
    "protocol.dirichlet",
    "protocol.small_classes",
    "protocol.unlabelled",
)


@dataclass(kw_only=True)
class Pair:
    """The comparison of two runs on the same episodes."""

    first: str
    """The name of the first run."""
    second: str
    """The name of the second run."""
    difference: float
    """The difference of the mean accuracies, first minus second."""
    ci95: float
    """The 95 % half width of the difference over episode draws."""
    p: float
    """The two-sided paired p-value."""
    p_holm: float = math.nan
    """The p-value after Holm's correction over all pairs of the comparison."""


@dataclass(kw_only=True)
class Comparison:
    """The result of a comparison on the episodes that all runs share."""

    runs: list[dict[str, Any]]
    """The name, method and accuracy of each run."""
    pairs: list[Pair]
    """The comparison of every pair of runs."""
    episodes: int
    """The number of episodes that all runs share."""

    def to_dict(self) -> dict[str, Any]:
        return {"runs": self.runs, "pairs": [asdict(p) for p in self.pairs], "episodes": self.episodes}


def compare(folders: Sequence[Path]) -> Comparison:
    """Compare two or more run folders in pairs on their common episodes.

    Raises UsageError, naming the differences, where the runs' episodes differ, and for fewer than two runs; FsmmError
    for a folder that is not a run.
    """
    if len(folders) < 2:
        raise UsageError("Comparing needs at least two runs; name their folders.")
    runs = [(_name(folder, folders), *load_run(folder)) for folder in folders]
    for (first, config, _, _), (second, other, _, _) in itertools.combinations(runs, 2):
        if differ := differences(config, other):
            raise UsageError(f"Runs {first} and {second} cannot be paired: {'; '.join(differ)}.")
    shared = min(len(arrays["accuracy"]) for *_, arrays in runs)
    values = {name: arrays["accuracy"][:shared].astype(np.float64) for name, _, _, arrays in runs}
    pairs = [paired(a, b, values[a], values[b]) for a, b in itertools.combinations(values, 2)]
    for pair, p in zip(pairs, holm([pair.p for pair in pairs])):
        pair.p_holm = p
    listed = [
        {"name": n, "accuracy": float(values[n].mean()), "method": config["method"]}
        for n, config, _, _ in runs
    ]
    return Comparison(runs=listed, pairs=pairs, episodes=shared)


def differences(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """One phrase for each value that makes the episodes of two runs differ; empty where they are the same."""
    found = []
    for path in _SAME:
        mine, theirs = _at(config, path), _at(other, path)
        if mine != theirs:
            found.append(f"{path} is {mine!r} and {theirs!r}")
    return found


def paired(first: str, second: str, a: np.ndarray, b: np.ndarray) -> Pair:
    """The pair of runs with accuracies a, b [E], by Student's t-test on the differences of episodes."""
    from scipy.stats import t

    difference = a - b
    n = len(difference)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    if error == 0.0:
        return Pair(first=first, second=second, difference=mean, ci95=0.0, p=1.0 if mean == 0 else 0.0)
    p = float(2 * t.sf(abs(mean) / error, n - 1))
    width = float(t.ppf(0.975, n - 1)) * error
    return Pair(first=first, second=second, difference=mean, ci95=width, p=p)


def holm(p: Sequence[float]) -> list[float]:
    """The p-values adjusted by Holm's step-down procedure (Scandinavian Journal of Statistics, 1979)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min((len(p) - rank) * p[i], 1.0))
        adjusted[i] = running
    return adjusted.tolist()


def _name(folder: Path, folders: Sequence[Path]) -> str:
    return folder.name if [f.name for f in folders].count(folder.name) == 1 else str(folder)


def _at(config: dict[str, Any], path: str) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value
