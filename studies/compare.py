"""Comparing runs in pairs on the episodes that they share, by difference, intervals and corrected p-values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..episodes.protocol import Protocol
from ..errors import UsageError
from ..runs import redraw
from ..runs.listing import short_names
from ..runs.redraw import DrawnOtherwise, Source, can_redraw, imbalance, outcomes
from ..runs.statistics import Draws
from ..runs.store import load_run
from .pairs import Pair, correct
from .seeded_pairs import mean_over_seeds, over_draws, pair_of_seeds, seeded_name
from .stored_head import StoredHead

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
    "protocol.replay",
)
# What runs that were made before an option meant by saying nothing of it.
_UNSAID = {"protocol.shared_group": True}


@dataclass(kw_only=True)
class Comparison:
    """The result of a comparison on the episodes that all runs share."""

    runs: list[dict[str, Any]]
    """The name, method, accuracy and first folder of each head; the number of its training seeds, whether it is free,
    and for a trained head the best free one on its modalities, with the difference from that."""
    pairs: list[Pair]
    """The comparison of every pair of heads."""
    episodes: int
    """The number of episodes that all runs share."""
    notes: list[str] = field(default_factory=list)
    """Sentences that a reader of the figures should see."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Stored(StoredHead):
    """A run that was read from its folder."""

    name: str
    folder: Path

    def figures(self, episodes: int) -> np.ndarray:
        """The figures of the first episodes, float64."""
        return self.arrays["accuracy"][:episodes].astype(np.float64)

    def right(self, draws: Draws) -> np.ndarray:
        """Whether each query of the drawn episodes was classified rightly, bool [E, Q]."""
        return outcomes(self.arrays["right_bits"][: len(draws)], draws.query.shape[1])


@dataclass(frozen=True)
class _Head:
    """The runs of a head, which differ in the seed of its training alone."""

    runs: tuple[_Stored, ...]

    @property
    def name(self) -> str:
        return seeded_name(self.runs[0].name, len(self.runs))

    def of_seeds(self, episodes: int) -> list[np.ndarray]:
        """The figures of the first episodes for each seed, float64."""
        return [run.figures(episodes) for run in self.runs]

    def figures(self, episodes: int) -> np.ndarray:
        """The figures of the first episodes, float64: their means over seeds."""
        mean: np.ndarray = np.mean(self.of_seeds(episodes), 0)
        return mean


def compare(folders: Sequence[Path], *, draws: bool = False) -> Comparison:
    """Compare two or more run folders in pairs on their common episodes, over clips and over classes.

    Runs that differ in the seed of their training alone are one head, which is judged by the mean over its seeds; where
    there is no other head, its seeds are compared with one another. draws: compare over episode draws as well, which is
    done in any case where nothing else can be had; a note of the comparison then says why.
    Raises UsageError, naming the differences, where the runs' episodes differ, and for fewer than two runs; FsmmError
    for a folder that is not a run.
    """
    if len(folders) < 2:
        raise UsageError("Comparing needs at least two runs; name their folders.")
    names, runs = short_names(folders), []
    for folder in folders:
        config, metrics, arrays = load_run(folder)
        runs.append(_Stored(name=names[folder], folder=folder, config=config, metrics=metrics, arrays=arrays))
    for run, other in itertools.combinations(runs, 2):
        if differ := differences(run.config, other.config):
            raise UsageError(f"Runs {run.name} and {other.name} cannot be paired: {'; '.join(differ)}.")
    lengths = [len(run.arrays["accuracy"]) for run in runs]
    shared = min(*lengths, redraw.MOST)
    drawn, notes = _drawn(runs, shared)
    notes += _about_files(runs)
    if max(lengths) > shared:
        why = (
            "differ in number of episodes" if min(lengths) == shared else "have more episodes than are needed"
        )
        notes.append(f"The runs {why}; they are compared on the first {shared:,}.")
    heads = _heads(runs)
    pairs = []
    for one, two in itertools.combinations(heads, 2):
        pair = _pair(one, two, drawn, shared)
        if draws or drawn is None:
            pair.draws = over_draws(one.of_seeds(shared), two.of_seeds(shared))
        pairs.append(pair)
    correct(pairs)
    listed = [{**_listed(head, heads, pairs, shared), **_of_seeds(head, drawn)} for head in heads]
    return Comparison(runs=listed, pairs=pairs, episodes=shared, notes=notes)


def _heads(runs: Sequence[_Stored]) -> list[_Head]:
    """The heads of runs, in their order; runs of the same seed are heads of their own, and so are those of one head."""
    found: dict[str, list[_Stored]] = {}
    for run in runs:
        found.setdefault(run.head if run.trained else run.name, []).append(run)
    if len(found) == 1:
        return [_Head((run,)) for run in runs]
    heads = []
    for group in found.values():
        seeds = {run.config.get("train_seed") for run in group}
        heads += [_Head(tuple(group))] if len(seeds) == len(group) else [_Head((run,)) for run in group]
    return heads


def _listed(head: _Head, heads: Sequence[_Head], pairs: Sequence[Pair], shared: int) -> dict[str, Any]:
    """What a comparison says of a head by itself, and where it stands beside the best head without training."""
    first = head.runs[0]
    about: dict[str, Any] = {
        "name": head.name,
        "accuracy": float(head.figures(shared).mean()),
        "method": first.config["method"],
        "folder": str(first.folder),
        "seeds": len(head.runs),
        "free": first.free,
    }
    fair = [other for other in heads if other.runs[0].free and other.runs[0].may_judge(first)]
    if not first.trained or not fair:
        return about
    free = max(fair, key=lambda other: float(other.figures(shared).mean()))
    pair = next(pair for pair in pairs if {pair.first, pair.second} == {head.name, free.name})
    difference = pair.difference if pair.first == head.name else -pair.difference
    width = None if pair.clips is None else pair.clips.ci95
    beats = None if width is None else difference > width
    return {**about, "best_free": free.name, "above_free": difference, "beats_free": beats}


def _of_seeds(head: _Head, drawn: Draws | None) -> dict[str, float | None]:
    """The half widths of the mean over a head's seeds, which count the seeds; nothing for a head with one seed."""
    if len(head.runs) == 1 or drawn is None:
        return {}
    right = [run.right(drawn) for run in head.runs]
    found = mean_over_seeds(right, drawn, transductive=head.runs[0].transductive)
    both = {"ci95_clips": found.clips, "ci95_classes": found.classes}
    return {name: None if of.reason else of.half_width() for name, of in both.items()}


def differences(config: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """One phrase for each value that makes the episodes of two runs differ; empty where they are the same."""
    found = []
    for path in _SAME:
        mine, theirs = (_at(each, path, _UNSAID.get(path)) for each in (config, other))
        if mine != theirs:
            found.append(f"{path} is {mine!r} and {theirs!r}")
    # All may agree for other clips: those of a data set of the same name and size. Older runs do not name their clips.
    clips = {each["clip_ids"] for each in (config, other) if each.get("clip_ids")}
    if len(clips) > 1 and not found:
        found.append("they are on other clips, of a data set of the same name")
    return found


def _about_files(runs: Sequence[_Stored]) -> list[str]:
    """The sentence that says that clips of the same ids have other files, or may have; none where they do not."""
    by_files = {run.config["clip_files"]: run for run in runs if run.config.get("clip_files")}
    if len(by_files) < 2:
        caches = {run.config.get("cache") for run in runs}
        if len(caches) == 1 or all(run.config.get("clip_files") for run in runs):
            return []
        return [
            "The runs were made on different caches, and not all know the files of their clips; clips of the same ids "
            "are taken for the same."
        ]
    one, other, *_ = by_files.values()
    return [
        f"The clips of {one.name} and {other.name} have the same ids and other files: the files were changed between "
        "the runs, or belong to another data set; the runs can only be compared where they show the same."
    ]


def _pair(one: _Head, other: _Head, drawn: Draws | None, shared: int) -> Pair:
    """The pair of two heads, over clips and classes where their episodes were drawn again."""
    names = (one.name, other.name)
    if drawn is None:
        difference = float((one.figures(shared) - other.figures(shared)).mean())
        return Pair(first=names[0], second=names[1], difference=difference)
    transductive = any(run.transductive for run in (*one.runs, *other.runs))
    first, second = ([run.right(drawn) for run in head.runs] for head in (one, other))
    return pair_of_seeds(names, first, second, drawn, transductive=transductive)


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


def _at(config: Mapping[str, Any], path: str, unsaid: Any = None) -> Any:
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return unsaid if value is None else value
