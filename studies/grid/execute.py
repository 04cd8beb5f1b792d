"""Doing the runs of a study by workers, each of which takes whole runs with one thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ...machine.outcome import Outcome
from .store import Failure, add_failure
from .work import BUSY, Task, is_trained
from .workers import Workers

_PAUSE = 0.5  # The seconds between two looks at a run that another sweep is doing.


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended."""

    key: str
    """The key of the run."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Its figures; empty where it failed, and where another sweep has done it."""
    reason: str = ""
    """Why it failed; empty where it is stored."""


Tell = Callable[[Ended], None]


def execute(tasks: Sequence[Task], folder: Path, workers: Workers, *, tell: Tell) -> None:
    """Do all tasks, trainings first and the longest first; failures are recorded and stop no other run.

    folder: the folder of the study. tell: called after each run. Raises OSError where a failure cannot be recorded.
    """
    queue = _Queue(tasks, folder)
    with workers:
        while queue.tasks or not workers.is_idle:
            while workers.has_room and (task := queue.take()) is not None:
                workers.begin(task)
            if workers.is_idle:  # Every task that is left is being done by another sweep.
                time.sleep(_PAUSE)
            for outcome in workers.wait(_PAUSE):
                for ended in queue.ended(outcome):
                    tell(ended)


class _Queue:
    """The tasks that are to be done, and what is known of heads."""

    def __init__(self, tasks: Sequence[Task], folder: Path) -> None:
        self.tasks = sorted(tasks, key=lambda task: (task.trains, task.seconds), reverse=True)
        self._folder = folder
        self._untrained = {task.key for task in tasks if task.trains}
        self._running: dict[str, Task] = {}
        self._not_before: dict[str, float] = {}

    def take(self) -> Task | None:
        """The next task that may start now, or None where there is none."""
        now = time.monotonic()
        for task in self.tasks:
            waits = not task.trains and task.head in self._untrained
            if not waits and self._not_before.get(task.key, 0.0) <= now:
                self.tasks.remove(task)
                self._running[task.key] = task
                return task
        return None

    def ended(self, outcome: Outcome) -> Iterator[Ended]:
        """The runs that have ended by the outcome of a task; failures are recorded."""
        task = self._running.pop(str(outcome.job))
        if outcome.value == BUSY:
            self._not_before[task.key] = time.monotonic() + _PAUSE
            self.tasks.append(task)
            return
        if task.trains:
            self._untrained.discard(task.key)
            if outcome.reason:
                yield from self._lost(task.key, outcome)
        elif outcome.reason:
            yield self._failed(task.key, outcome.kind, outcome.reason)
        else:
            yield Ended(key=task.key, figures=outcome.value if isinstance(outcome.value, dict) else {})

    def _lost(self, head: str, outcome: Outcome) -> Iterator[Ended]:
        """The runs that cannot be done because their head could not be trained."""
        lost = [task for task in self.tasks if task.head == head]
        self.tasks = [task for task in self.tasks if task.head != head]
        for task in lost:
            yield self._failed(task.key, outcome.kind, f"Its head could not be trained. {outcome.reason}")

    def _failed(self, key: str, kind: str, reason: str) -> Ended:
        at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        add_failure(self._folder, Failure(key=key, kind=kind, reason=reason, at=at))
        return Ended(key=key, reason=reason)


def trainings(tasks: Sequence[Task], folder: Path) -> list[Task]:
    """The tasks of training the heads that runs need and the study does not hold, each once."""
    found: dict[str, Task] = {}
    for task in tasks:
        if task.head is not None and not is_trained(folder, task.head) and task.head not in found:
            found[task.head] = Task(key=task.head, job=task.job, trained_as=task.trained_as, trains=True)
    return list(found.values())
