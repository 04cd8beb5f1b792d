"""The expected time and memory of a study: some kinds of task are measured, and the others are scaled from them.

Every family of kinds (a method) is measured once, on its largest episodes. Then the kinds that are
expected to take the longest are measured themselves, for a tenth of the study's time and BUDGET seconds at most.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
"""The seconds after which no further kind is measured; what runs by then is given GRACE seconds."""
GRACE = 20.0
_SHARE = 0.1  # The share of a study's expected time that measuring its larger kinds may take.


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a study."""

    seconds: float
    """The seconds until all its tasks are done."""
    memory_mb: float
    """The memory of all its processes, with what they share counted once."""
    guessed: int = 0
    """The number of methods of which nothing could be measured in time; they are taken for average ones."""


class Costs:
    """What each kind of task costs: as measured, or as the nearest measured kind of its family says.

    measured: the costs that are measured, by the names of their kinds.
    """

    def __init__(self, measured: Mapping[str, Cost]) -> None:
        self.measured = dict(measured)

    def of(self, kind: Kind) -> Cost:
        """The cost of a kind; where nothing of its family is measured, the mean of what is."""
        if kind.name in self.measured:
            return self.measured[kind.name]
        alike = [cost for cost in self.measured.values() if cost.family == kind.family]
        if alike:
            return min(alike, key=lambda cost: _distance(cost, kind)).scaled_to(kind)
        every = [cost.scaled_to(kind) for cost in self.measured.values()]
        episode = float(np.mean([cost.episode for cost in every])) if every else Cost().episode
        return Cost(family=kind.family, size=kind.size, episode=episode)

    def knows(self, family: str) -> bool:
        """Whether a kind of a family is measured."""
        return any(cost.family == family for cost in self.measured.values())


def costs_of(tasks: Sequence[Task], folder: Path, loader: Loader, *, pool: ForkedJobs) -> Costs:
    """The costs of tasks, by what the study's folder knows and by what is measured now.

    folder: the folder of the study. pool: the workers that measure.
    """
    costs, began = Costs(_known(folder)), time.monotonic()
    waiting = _Waiting(tasks, costs)
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
            if pool.is_idle or spent > BUDGET + GRACE:
                return costs
            for outcome in pool.wait(1.0):
                if isinstance(outcome.value, Cost):
                    costs.measured[str(outcome.job)] = outcome.value
                else:
                    waiting.failed(str(outcome.job))


class _Waiting:
    """The kinds that may be measured: the largest of each unknown family, then those that take the longest."""

    def __init__(self, tasks: Sequence[Task], costs: Costs) -> None:
        self._costs = costs
        self._tasks: dict[Kind, list[Task]] = {}
        for task in tasks:
            self._tasks.setdefault(Kind.of(task), []).append(task)
        self._begun = {kind for kind in self._tasks if kind.name in costs.measured}
        work: dict[str, int] = {}
        for kind, alike in self._tasks.items():
            if not costs.knows(kind.family):
                work[kind.family] = work.get(kind.family, 0) + kind.size * len(alike)
        self._first = [self._largest(family) for family in sorted(work, key=work.__getitem__)]

    def take(self, spent: float, jobs: int) -> tuple[Kind, Task] | None:
        """The next kind with one of its tasks; None where none is worth the time, so many seconds having been spent."""
        kind = self._next(spent, jobs)
        if kind is None:
            return None
        self._begun.add(kind)
        return kind, self._tasks[kind][0]

    def _next(self, spent: float, jobs: int) -> Kind | None:
        if spent > BUDGET:
            return None
        while self._first:
            if (kind := self._first.pop()) is not None:
                return kind
        seconds = {
            kind: sum(self._costs.of(kind).seconds(task) for task in tasks)
            for kind, tasks in self._tasks.items()
        }
        left = [kind for kind in seconds if kind not in self._begun]
        if not left or spent > _SHARE * sum(seconds.values()) / jobs:
            return None
        return max(left, key=seconds.__getitem__)

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
        guessed=sum(not costs.knows(family) for family in {kind.family for kind in kinds}),
    )


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
