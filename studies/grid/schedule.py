"""The expected time and memory of a study: some kinds of task are measured, and the others are scaled from them.

Every method is measured once, on its largest episodes: those without training first, since they take the least. What
it takes on other data follows from methods that are measured on both. Then
the kinds are whose measurement tells most, for a tenth of the study's time and BUDGET seconds at most: what a method is
expected to take with the same settings on the same data, or what a single kind is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import FsmmError
from ...machine.files import parsed_json, refuse_special, write_json
from ...machine.forked_jobs import ForkedJobs
from ...machine.memory import own_peak_mb
from .cost import Cost, Kind, measured
from .work import Loader, Task

COSTS = "costs.json"
BUDGET = 50.0
"""The seconds after which no further kind is measured."""
_GRACE = 0.4  # The share of them that what is being measured by then is given.
_SHARE = 0.1  # The share of a study's expected time that measuring its larger kinds may take.


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a study."""

    seconds: float
    """The seconds until all its tasks are done."""
    memory_mb: float
    """The memory of all its processes, with what they share counted once."""
    guessed: int = 0
    """The number of methods of which nothing could be measured in time; they are taken for middling ones."""


class Costs:
    """What each kind of task costs: as measured, or as the nearest measured kind of its family says.

    measured: the costs that are measured, by the names of their kinds.
    """

    def __init__(self, measured: Mapping[str, Cost]) -> None:
        self.measured: dict[str, Cost] = {}
        self._alike: dict[tuple[str, str], list[Cost]] = {}
        self._shares: dict[tuple[str, str], tuple[float, float]] = {}
        for name, cost in measured.items():
            self.add(name, cost)

    def add(self, name: str, cost: Cost) -> None:
        """Take in the cost of the kind of that name, which is measured."""
        self.measured[name] = cost
        self._shares.clear()
        for key in _alike(cost):
            self._alike.setdefault(key, []).append(cost)

    def of(self, kind: Kind) -> Cost:
        """The cost of a kind, by its family, else by its method; where neither is measured, the median of what is."""
        if kind.name in self.measured:
            return self.measured[kind.name]
        for key in _alike(kind):
            if known := self._alike.get(key):
                return self._carried(min(known, key=lambda cost: _distance(cost, kind)), kind)
        # A few methods cost a thousand times what most do, and would be all that a mean tells of.
        every = [cost.scaled_to(kind).episode for cost in self.measured.values()]
        episode = float(np.median(every)) if every else Cost().episode
        return Cost(family=kind.family, size=kind.size, method=kind.method, episode=episode)

    def _carried(self, nearest: Cost, kind: Kind) -> Cost:
        """The cost of a kind, by one that is like it: of its size, and on its data."""
        scaled = nearest.scaled_to(kind)
        episode, step = self._share(nearest.data, kind.data)
        return replace(scaled, episode=scaled.episode * episode, step=scaled.step * step)

    def _share(self, known: str, wanted: str) -> tuple[float, float]:
        """How much longer an episode and a step take on one data set than on another, a clip.

        This is the median over the families that are measured on both, and one where none is: what wider features and
        more steps cost is not known beforehand.
        """
        if known == wanted:
            return 1.0, 1.0
        if (known, wanted) not in self._shares:
            pairs = [pair for costs in self._of_families() if (pair := _on_both(costs, known, wanted))]
            self._shares[known, wanted] = (
                _median_ratio([(a.episode / a.size, b.episode / b.size) for a, b in pairs]),
                _median_ratio([(a.step / a.size, b.step / b.size) for a, b in pairs]),
            )
        return self._shares[known, wanted]

    def _of_families(self) -> Iterator[list[Cost]]:
        """The measured costs of each family."""
        return (costs for (what, _), costs in self._alike.items() if what == "family")

    def knows(self, family: str) -> bool:
        """Whether a kind of a family is measured."""
        return ("family", family) in self._alike

    def knows_method(self, kind: Kind) -> bool:
        """Whether a kind of the same method is measured."""
        return any(key in self._alike for key in _alike(kind))


def _alike(found: Cost | Kind) -> list[tuple[str, str]]:
    """The keys of what is like a kind or a cost: its family first, then its method where it is known."""
    return [("family", found.family), *([("method", found.method)] if found.method else [])]


def costs_of(
    tasks: Sequence[Task], folder: Path, loader: Loader, *, pool: ForkedJobs, seconds: float = BUDGET
) -> Costs:
    """The costs of tasks, by what the study's folder knows and by what is measured now.

    folder: the folder of the study. pool: the workers that measure. seconds: after so many, no further kind is
    measured, and what is being measured has two fifths of them more.
    """
    costs, began = Costs(_known(folder)), time.monotonic()
    waiting = _Waiting(tasks, costs, seconds)
    with pool:
        while True:
            spent = time.monotonic() - began
            while pool.has_room and (found := waiting.take(spent, pool.most)) is not None:
                kind, task = found
                loader.load(task)
                if task.head is not None:
                    loader.load(task, trains=True)
                pool.start(kind.name, partial(measured, kind, task, loader.shared))
                spent = time.monotonic() - began
            if pool.is_idle or spent > seconds * (1 + _GRACE):
                return costs
            for outcome in pool.wait(1.0):
                if isinstance(outcome.value, Cost):
                    costs.add(str(outcome.job), outcome.value)
                else:
                    waiting.failed(str(outcome.job))


class _Waiting:
    """The kinds that may be measured: one of each method, then those whose measurement tells most of the time."""

    def __init__(self, tasks: Sequence[Task], costs: Costs, seconds: float) -> None:
        self._costs, self._seconds = costs, seconds
        self._tasks: dict[Kind, list[Task]] = {}
        for task in tasks:
            self._tasks.setdefault(Kind.of(task), []).append(task)
        self._begun = {kind for kind in self._tasks if kind.name in costs.measured}
        self._first = [self._largest(family) for family in reversed(self._families())]

    def _families(self) -> list[str]:
        """A family of each unknown method, of its largest work, in the order in which they are measured."""
        work: dict[tuple[bool, str], dict[str, int]] = {}
        for kind, alike in self._tasks.items():
            if not self._costs.knows_method(kind):
                of = work.setdefault((alike[0].head is not None, kind.method), {})
                of[kind.family] = of.get(kind.family, 0) + kind.size * len(alike)
        order = sorted(work, key=lambda method: (method[0], -sum(work[method].values())))
        return [max(work[method], key=work[method].__getitem__) for method in order]

    def take(self, spent: float, jobs: int) -> tuple[Kind, Task] | None:
        """The next kind with one of its tasks; None where none is worth the time, so many seconds having been spent."""
        kind = self._next(spent, jobs)
        if kind is None:
            return None
        self._begun.add(kind)
        return kind, self._tasks[kind][0]

    def _next(self, spent: float, jobs: int) -> Kind | None:
        if spent > self._seconds:
            return None
        while self._first:
            if (kind := self._first.pop()) is not None:
                return kind
        seconds = {
            kind: sum(self._costs.of(kind).seconds(task) for task in tasks)
            for kind, tasks in self._tasks.items()
        }
        if spent > _SHARE * sum(seconds.values()) / jobs:
            return None
        told = self._told(seconds)
        return max(told, key=lambda kind: (told[kind], kind.size), default=None)

    def _told(self, seconds: Mapping[Kind, float]) -> dict[Kind, float]:
        """The seconds of which the measurement of each kind tells that was not begun.

        These are its own, and where nothing of its family was begun on its data, those of all such kinds: how much
        longer features of other widths take is hardly known beforehand.
        """
        known = {(kind.family, kind.data) for kind in self._begun}
        whole: dict[tuple[str, str], float] = {}
        for kind, spent in seconds.items():
            whole[kind.family, kind.data] = whole.get((kind.family, kind.data), 0.0) + spent
        return {
            kind: spent if (kind.family, kind.data) in known else whole[kind.family, kind.data]
            for kind, spent in seconds.items()
            if kind not in self._begun
        }

    def failed(self, name: str) -> None:
        """The measurement of a kind has failed, as its runs will: the next one of its family is measured instead."""
        (family,) = {kind.family for kind in self._tasks if kind.name == name}
        self._first.append(self._largest(family))

    def _largest(self, family: str) -> Kind | None:
        """The largest kind of a family that was not begun; None where there is none."""
        left = [kind for kind in self._tasks if kind.family == family and kind not in self._begun]
        return max(left, key=lambda kind: kind.size, default=None)


def keep_costs(folder: Path, costs: Costs) -> None:
    """Write what is measured into a study's folder, so that it is not measured again."""
    write_json(folder / COSTS, {kind: asdict(cost) for kind, cost in costs.measured.items()})


def with_costs(tasks: Sequence[Task], costs: Costs) -> list[Task]:
    """The tasks with the seconds that they are expected to take."""
    return [replace(task, seconds=costs.of(Kind.of(task)).seconds(task)) for task in tasks]


def estimate(tasks: Sequence[Task], costs: Costs, *, jobs: int) -> Estimate:
    """The expected time and memory of tasks that have their seconds, done so many at a time."""
    total, longest = sum(task.seconds for task in tasks), max((task.seconds for task in tasks), default=0.0)
    kinds = [Kind.of(task) for task in tasks]
    heaviest = sorted((costs.of(kind).memory_mb for kind in kinds), reverse=True)
    return Estimate(
        seconds=max(total / max(jobs, 1), longest),
        memory_mb=own_peak_mb() + sum(heaviest[:jobs]),
        guessed=len({kind.method for kind in kinds if not costs.knows_method(kind)}),
    )


def _on_both(costs: Sequence[Cost], known: str, wanted: str) -> tuple[Cost, Cost] | None:
    """Two costs of a family, one on each data set, as near in size as there are any; None where one is lacking."""
    first, second = ([cost for cost in costs if cost.data == data] for data in (known, wanted))
    pairs = itertools.product(first, second)
    return min(pairs, key=lambda pair: abs(float(np.log(pair[0].size / pair[1].size))), default=None)


def _median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of b / a over pairs (a, b) of positive numbers; 1 where there is none."""
    ratios = [b / a for a, b in pairs if a > 0 and b > 0]
    return float(np.median(ratios)) if ratios else 1.0


def _distance(cost: Cost, kind: Kind) -> tuple[bool, float]:
    """How little a measured cost says of a kind of its family: other data first, then another size."""
    return cost.data != kind.data, abs(float(np.log(cost.size / kind.size)))


def _known(folder: Path) -> dict[str, Cost]:
    """The costs that a study's folder knows, as far as they can be read."""
    path = folder / COSTS
    try:
        refuse_special(path, "list of costs")
        found = {kind: Cost(**values) for kind, values in parsed_json(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError, FsmmError):
        return {}
    return {kind: cost for kind, cost in found.items() if cost.is_possible}
