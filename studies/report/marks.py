"""The marks of a report's runs: which is the best of a task, which are not worse, which beat what needs no training.

Every mark is decided by the paired difference on the same episodes and its 95 % interval over clips, as ``fsmm
compare`` prints it. Runs that differ in the seed of their training alone are one head, which is judged by the mean over
its seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import FsmmError
from ...runs import redraw
from ...runs.redraw import Source, outcomes
from ...runs.statistics import Draws
from ..pairs import Pair
from ..seeded_pairs import mean_over_seeds, pair_of_seeds, seeded_name
from .data import ReportRun, Task


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What is said of a run within its task."""

    best: bool = False
    """Whether it is the most accurate of several heads of its kind (inductive or transductive)."""
    not_worse: bool | None = None
    """Whether the best of its kind is not significantly better; None where that cannot be said."""
    seeds: int = 1
    """The number of training seeds of the run's head."""
    mean: float = 0.0
    """The accuracy of the head as the mean over its training seeds, in 0..1."""
    mean_ci95: float | None = None
    """The 95 % half width of ``mean`` over clips and training seeds; None where it has no value."""
    free: str = ""
    """The name of the best run without training on the same features; empty where there is none."""
    difference: float | None = None
    """Its accuracy minus that of the run called ``free``."""
    ci95: float | None = None
    """The 95 % half width of that difference over clips."""
    beats_free: bool | None = None
    """Whether that difference lies above its interval; None where it was not looked for or cannot be said."""


@dataclass(frozen=True)
class Entry:
    """A head of a task, with the runs of its training seeds."""

    runs: tuple[ReportRun, ...]

    @property
    def first(self) -> ReportRun:
        return self.runs[0]

    @property
    def accuracy(self) -> float:
        """The mean accuracy over the seeds."""
        return float(np.mean([run.accuracy for run in self.runs]))

    @property
    def name(self) -> str:
        return seeded_name(self.first.name, len(self.runs))

    def outcomes(self, draws: Draws) -> list[np.ndarray]:
        """The outcomes of the queries of drawn episodes, bool [E, Q] for each seed."""
        queries = draws.query.shape[1]
        return [outcomes(run.arrays["right_bits"][: len(draws)], queries) for run in self.runs]


def entries(runs: Iterable[ReportRun]) -> list[Entry]:
    """The heads of a task; of runs with the same seed of training the first is taken."""
    found: dict[str, dict[object, ReportRun]] = {}
    for run in runs:
        seed = run.config.get("train_seed") if run.trained else None
        found.setdefault(run.head, {}).setdefault(seed, run)
    return [Entry(tuple(seeds.values())) for seeds in found.values()]


def marks_of(task: Task) -> dict[str, Mark]:
    """The mark of each run of a task, by the run's name."""
    heads = entries(task.runs)
    judge = _Judge(task)
    made: dict[str, Mark] = {}
    for transductive in (False, True):
        kind = [head for head in heads if head.first.transductive == transductive]
        best = max(kind, key=lambda head: head.accuracy, default=None)
        for head in kind:
            leads = head is best and len(kind) > 1
            not_worse = leads or judge.not_worse(head, best)
            free = best_free(head.first, heads) if head.first.trained else None
            mark = _mark(head, free, judge, best=leads, not_worse=not_worse)
            made[head.first.head] = replace(
                mark, seeds=len(head.runs), mean=head.accuracy, mean_ci95=judge.half_width(head)
            )
    return {run.name: made[run.head] for run in task.runs}


def best_free(run: ReportRun, heads: Sequence[Entry]) -> Entry | None:
    """The most accurate head without training whose modalities are all among the run's."""
    fair = [head for head in heads if head.first.free and head.first.may_judge(run)]
    return max(fair, key=lambda head: head.accuracy, default=None)


def _mark(head: Entry, free: Entry | None, judge: _Judge, *, best: bool, not_worse: bool | None) -> Mark:
    if free is None:
        return Mark(best=best, not_worse=not_worse)
    pair = judge.pair(head, free)
    width = None if pair is None or pair.clips is None else pair.clips.ci95
    difference = head.accuracy - free.accuracy if pair is None else pair.difference
    beats = None if width is None else difference > width
    return Mark(
        best=best,
        not_worse=not_worse,
        free=free.name,
        difference=difference,
        ci95=width,
        beats_free=beats,
    )


class _Judge:
    """Pairs of heads of one task, whose episodes are drawn again once."""

    def __init__(self, task: Task) -> None:
        self._draws = _drawn(task.runs)

    def pair(self, one: Entry, other: Entry) -> Pair | None:
        """The pair of two heads; None where it cannot be had over clips."""
        runs = (*one.runs, *other.runs)
        if self._draws is None or not all(run.can_pair for run in runs):
            return None
        shared = min(len(self._draws), *(len(run.arrays["right_bits"]) for run in runs))
        draws = self._draws[:shared]
        names = (one.name, other.name)
        transductive = any(run.transductive for run in runs)
        return pair_of_seeds(
            names, one.outcomes(draws), other.outcomes(draws), draws, transductive=transductive
        )

    def half_width(self, head: Entry) -> float | None:
        """The 95 % half width of a head's accuracy over clips and training seeds; None where it cannot be had."""
        if len(head.runs) == 1:
            return head.first.number("ci95_clips")
        if self._draws is None or not all(run.can_pair for run in head.runs):
            return None
        draws = self._draws[: min(len(self._draws), *(len(run.arrays["right_bits"]) for run in head.runs))]
        clips = mean_over_seeds(head.outcomes(draws), draws, transductive=head.first.transductive).clips
        return None if clips.reason else clips.half_width()

    def not_worse(self, head: Entry, best: Entry | None) -> bool | None:
        """Whether the interval of the best head's lead over this one holds zero; None where that cannot be said."""
        if best is None or head is best:
            return None
        if _far_apart(best, head):
            return False
        pair = self.pair(best, head)
        if pair is None or pair.clips is None or pair.clips.ci95 is None:
            return None
        return pair.difference <= pair.clips.ci95


def _far_apart(best: Entry, head: Entry) -> bool:
    """Whether two heads differ so much that pairing cannot say otherwise: by twice the sum of their own intervals.

    The standard error of a difference is at most the sum of both standard errors.
    """
    widths = [run.number("ci95_clips") for run in (*best.runs, *head.runs)]
    if len(widths) > 2 or None in widths or not (best.first.can_pair and head.first.can_pair):
        return False
    return best.accuracy - head.accuracy > 2 * sum(width for width in widths if width is not None)


def _drawn(runs: Sequence[ReportRun]) -> Draws | None:
    """The episodes of a task's runs, drawn again; None where no run can be drawn again."""
    able: Mapping[int, ReportRun] = {len(run.arrays["right_bits"]): run for run in runs if run.can_pair}
    if not able:
        return None
    longest = max(able)
    try:
        source = Source.of_run(able[longest].config, able[longest].arrays)
    except FsmmError:  # The clips are not those of the run, or this version draws other episodes.
        return None
    return source.draws(0, min(longest, redraw.MOST))
