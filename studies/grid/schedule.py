"""The expected time and memory of a study, from the measured cost of one episode and one training step of each kind."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ...episodes.protocol import Protocol
from ...heads.head import Head
from ...heads.settings import Recipe
from ...machine.files import parsed_json, write_json
from ...machine.forked_jobs import ForkedJobs
from ...machine.memory import own_peak_mb
from ...runs.banks import Banks
from ...runs.digest import digest
from ...runs.extent import planned
from ...runs.filling_choice import provisional
from ...runs.measure import is_generalised, measure, whole_split
from ...runs.ready import built_head, learns, recipe_of
from ...runs.shared import SharedBanks
from ...runs.spec import RunSpec
from ...runs.train import train
from .work import Loader, Task

COSTS = "costs.json"
_EPISODES, _STEPS = 25, 4  # The episodes and steps by which the longer of two measurements is longer.
_LONG = 2.0  # The seconds of a first episode or step that is not repeated.


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The measured cost of one kind of task."""

    start: float = 0.1
    """The seconds before the first episode and after the last."""
    episode: float = 0.001
    """The seconds of an episode."""
    step: float = 0.0
    """The seconds of a training step."""
    steps: int = 0
    """The steps of a training that val classes do not prolong."""
    validation: int = 0
    """The episodes of all its validations."""
    memory_mb: float = 0.0
    """The memory that a worker takes beside what all share."""

    def seconds(self, task: Task) -> float:
        """The seconds that a task of this kind is expected to take."""
        if task.trains:
            return self.start + self.steps * self.step + self.validation * self.episode
        return self.start + (
            0.0 if _is_at_once(task.job.spec.protocol) else planned(task.job.episodes) * self.episode
        )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The expected cost of a study."""

    seconds: float
    """The seconds until all its tasks are done."""
    memory_mb: float
    """The memory of all its processes, with what they share counted once."""


def costs_of(tasks: Sequence[Task], folder: Path, loader: Loader, *, pool: ForkedJobs) -> dict[str, Cost]:
    """The cost of each kind of task; kinds that the study's folder does not know yet are measured.

    folder: the folder of the study. pool: the workers that measure.
    """
    known = _known(folder)
    kinds = {kind_of_task(task): task for task in tasks if not task.trains}
    missing = {kind: task for kind, task in kinds.items() if kind not in known}
    waiting = list(missing.items())
    with pool:
        while waiting or not pool.is_idle:
            while waiting and pool.has_room:
                kind, task = waiting.pop()
                loader.load(task)
                if task.head is not None:
                    loader.load(task, trains=True)
                pool.start(kind, partial(_measured, task, loader.shared))
            for outcome in pool.wait(1.0):
                known[str(outcome.job)] = outcome.value if isinstance(outcome.value, Cost) else Cost()
    return known


def keep_costs(folder: Path, costs: Mapping[str, Cost]) -> None:
    """Write the costs into a study's folder, so that they are not measured again."""
    write_json(folder / COSTS, {kind: asdict(cost) for kind, cost in costs.items()})


def with_costs(tasks: Sequence[Task], costs: Mapping[str, Cost]) -> list[Task]:
    """The tasks with the seconds that they are expected to take."""
    return [replace(task, seconds=costs.get(kind_of_task(task), Cost()).seconds(task)) for task in tasks]


def estimate(tasks: Sequence[Task], costs: Mapping[str, Cost], *, jobs: int) -> Estimate:
    """The expected time and memory of tasks that have their seconds, done so many at a time."""
    total, longest = sum(task.seconds for task in tasks), max((task.seconds for task in tasks), default=0.0)
    heaviest = sorted((costs.get(kind_of_task(task), Cost()).memory_mb for task in tasks), reverse=True)
    return Estimate(
        seconds=max(total / max(jobs, 1), longest), memory_mb=own_peak_mb() + sum(heaviest[:jobs])
    )


def kind_of_task(task: Task) -> str:
    """The name of the tasks that cost as much an episode or step as this one: seeds and rates do not matter."""
    spec, protocol = task.job.spec, task.job.spec.protocol
    return digest(
        {
            "method": [spec.method, spec.fusion, dict(spec.settings), spec.dtype],
            "streams": [task.job.place.dataset, spec.train_dataset or "", spec.streams, spec.modalities],
            "task": [
                protocol.n_way,
                protocol.k_shot,
                protocol.n_query,
                protocol.unlabelled,
                protocol.label_set,
            ],
            "withheld": bool(protocol.missing or protocol.noisy or protocol.cross_modal),
        }
    )


def _known(folder: Path) -> dict[str, Cost]:
    """The costs that a study's folder knows, as far as they can be read."""
    try:
        return {
            kind: Cost(**values) for kind, values in parsed_json((folder / COSTS).read_text("utf-8")).items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _measured(task: Task, shared: SharedBanks) -> Cost:
    """The cost of a task's kind, measured on its first episodes and on a few steps of its training."""
    began, before = time.perf_counter(), own_peak_mb()
    spec = task.trained_as if task.head else task.job.spec
    banks = Banks(spec, task.job.place, shared)
    head = built_head(spec, banks)
    more: dict[str, Any] = {"unlabelled": banks.unlabelled, "transductive": spec.resolved.transductive}
    test = provisional(head, banks.test, spec, banks)
    score = partial(measure, test.head, test.bank, spec.protocol, **more)
    if _is_at_once(spec.protocol):
        return Cost(start=1.0, memory_mb=own_peak_mb() - before)
    episode = _seconds(partial(score, episodes=1))
    start = time.perf_counter() - began
    if episode < _LONG:  # the first episode pays for what is made once
        one, many = (_seconds(partial(score, episodes=n)) for n in (1, 1 + _EPISODES))
        episode = max(many - one, 0.0) / _EPISODES
    found = Cost(start=start, episode=episode, memory_mb=max(own_peak_mb() - before, 0.0))
    if not learns(head):
        return found
    recipe = recipe_of(head, spec)
    few = replace(recipe, steps=1, ceiling=1, evaluate_episodes=1)
    step = _training_seconds(head, spec, banks, few)
    if step < _LONG:  # the first step pays for what is made once
        more_steps = _training_seconds(head, spec, banks, replace(few, steps=1 + _STEPS))
        step = max(more_steps - step, 0.0) / _STEPS
    return replace(
        found,
        step=step,
        steps=recipe.steps,
        validation=(recipe.steps // recipe.evaluate_every + 1) * recipe.evaluate_episodes,
        memory_mb=max(own_peak_mb() - before, 0.0),
    )


def _is_at_once(protocol: Protocol) -> bool:
    """Whether a test classifies whole splits, however many episodes are asked for."""
    return whole_split(protocol) or is_generalised(protocol)


def _training_seconds(head: Head, spec: RunSpec, banks: Banks, recipe: Recipe) -> float:
    """The seconds of a short training."""
    learn = partial(train, head, banks.base, banks.val)
    return _seconds(partial(learn, spec.protocol, recipe, seed=spec.train_seed))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
