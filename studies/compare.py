"""Comparing runs in pairs on the episodes that they share, by difference, intervals and corrected p-values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes.protocol import Protocol
from ..errors import UsageError
from ..runs import redraw
from ..runs.listing import short_name
from ..runs.redraw import DrawnOtherwise, Source, can_redraw, imbalance, outcomes
from ..runs.statistics import Draws
from ..runs.store import load_run
from .pairs import Pair, correct, over_draws, pair_of_outcomes

# Episode i of one run is episode i of another only where these values agree.
_SAME = (
    "dataset",
    "fingerprint",
    "protocol.n_way",
    "protocol.k_shot",
    "protocol.n_query",
    "protocol.seed",
    "protocol.dirichlet",
    "protocol.query_classes",
    "protocol.small_classes",
    "protocol.unlabelled",
    "protocol.shared_group",
    "protocol.support_groups",
    "protocol.query_groups",
    "protocol.support_group_share",
)
# What runs that were made before an option meant by saying nothing of it.
_UNSAID = {"protocol.shared_group": True}


@dataclass(kw_only=True)
class Comparison:
    """The result of a comparison on the episodes that all runs share."""

    runs: list[dict[str, Any]]
    """The name, method and accuracy of each run."""
    pairs: list[Pair]
    """The comparison of every pair of runs."""
    episodes: int
    """The number of episodes that all runs share."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the figures should see."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Stored:
    """A run that was read from its folder."""

    name: str
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def transductive(self) -> bool:
        return bool(self.arrays["transductive"])

    def accuracy(self, episodes: int) -> np.ndarray:
        """The figures of the first episodes, float64."""
        return self.arrays["accuracy"][:episodes].astype(np.float64)

    def right(self, draws: Draws) -> np.ndarray:
        """Whether each query of the drawn episodes was classified rightly, bool [E, Q]."""
        return outcomes(self.arrays["right_bits"][: len(draws)], draws.query.shape[1])


def compare(folders: Sequence[Path], *, draws: bool = False) -> Comparison:
    """Compare two or more run folders in pairs on their common episodes, over clips and over classes.

    draws: compare over episode draws as well, which is done in any case where nothing else can be had; a note of the
    comparison then says why.
    Raises UsageError, naming the differences, where the runs' episodes differ, and for fewer than two runs; FsmmError
    for a folder that is not a run.
    """
    if len(folders) < 2:
        raise UsageError("Comparing needs at least two runs; name their folders.")
    runs = []
    for folder in folders:
        config, _, arrays = load_run(folder)
        runs.append(_Stored(short_name(folder, folders), config, arrays))
    for one, other in itertools.combinations(runs, 2):
        if differ := differences(one.config, other.config):
            raise UsageError(f"Runs {one.name} and {other.name} cannot be paired: {'; '.join(differ)}.")
    lengths = [len(run.arrays["accuracy"]) for run in runs]
    shared = min(*lengths, redraw.MOST)
    drawn, notes = _drawn(runs, shared)
    if max(lengths) > shared:
        why = (
            "differ in number of episodes" if min(lengths) == shared else "have more episodes than are needed"
        )
        notes.append(f"The runs {why}; they are compared on the first {shared:,}.")
    pairs = []
    for one, other in itertools.combinations(runs, 2):
        pair = _pair(one, other, drawn, shared)
        if draws or drawn is None:
            pair.draws = over_draws(one.accuracy(shared), other.accuracy(shared))
        pairs.append(pair)
    correct(pairs)
    listed = [
        {"name": run.name, "accuracy": float(run.accuracy(shared).mean()), "method": run.config["method"]}
        for run in runs
    ]
    return Comparison(runs=listed, pairs=pairs, episodes=shared, notes=notes)


def differences(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """One phrase for each value that makes the episodes of two runs differ; empty where they are the same."""
    found = []
    for path in _SAME:
        mine, theirs = (_at(each, path, _UNSAID.get(path)) for each in (config, other))
        if mine != theirs:
            found.append(f"{path} is {mine!r} and {theirs!r}")
    return found


def _pair(one: _Stored, other: _Stored, drawn: Draws | None, shared: int) -> Pair:
    """The pair of two runs, over clips and classes where their episodes were drawn again."""
    names = (one.name, other.name)
    if drawn is None:
        difference = float((one.accuracy(shared) - other.accuracy(shared)).mean())
        return Pair(first=names[0], second=names[1], difference=difference)
    transductive = one.transductive or other.transductive
    return pair_of_outcomes(names, one.right(drawn), other.right(drawn), drawn, transductive=transductive)


def _drawn(runs: Sequence[_Stored], episodes: int) -> tuple[Draws | None, list[str]]:
    """The draws that the runs share, or None with the sentence that says why there are only the accuracies."""
    alone = "The runs are compared over episode draws alone"
    if reason := imbalance(Protocol.from_dict(runs[0].config["protocol"])):
        return None, [f"{alone}, since {reason}."]
    lacking = [run.name for run in runs if not can_redraw(run.arrays)]
    if lacking:
        return None, [
            f"{alone}: {', '.join(lacking)} does not hold the outcome of each query; `fsmm episode-eval` stores it for "
            "balanced episodes of one label a clip."
        ]
    try:
        sources = [Source.of_run(run.config, run.arrays) for run in runs]
    except DrawnOtherwise as error:
        return None, [f"{alone}. {error}"]
    return sources[0].draws(0, episodes), []


def _at(config: dict[str, Any], path: str, unsaid: Any = None) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return unsaid if value is None else value
