"""Workers with a state of their own on the machines of a Ray cluster; each is handed one item after another.

A worker is an actor that loads what it needs once (networks, a listing). An item is handed only to a worker that has
started, so that an item never waits for a machine that does not come; the items of lost workers are handed out again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..errors import FsmmError
from .outcome import Outcome
from .ray_engine import TRIES, answer, connect, ended, given_up, outcome_of, refuse_no_slot, slots, versions

Item = TypeVar("Item", bound=Hashable)
_STARTS = 10  # losses in a row of actors that were starting, after which no more are asked for
_PAUSE = 1.0  # the seconds between two looks at the machines of the cluster


class _Host:
    """The actor: it makes the worker, then does items. Errors are values, so that no error of ours ends the actor."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]], expected: tuple[str, str]) -> None:
        self._make, self._expected = make, expected
        self._work: Callable[[Any], Any] | None = None

    def ready(self) -> tuple[Any, str, str]:
        """Make the worker."""
        return answer(self._prepare, self._expected)

    def _prepare(self) -> None:
        self._work = self._make()

    def do(self, item: Any) -> tuple[Any, str, str]:
        """The outcome of one item."""
        assert self._work is not None
        work = self._work
        return answer(lambda: work(item), self._expected)


class RayActors(Generic[Item]):
    """A context manager of actors with so many CPUs and GPUs each, made as machines of the cluster have room.

    most: how many there are at most; None for as many as have room.
    make: a function, which can be pickled, that returns what does an item. Raises FsmmError where no machine of the
    cluster has room for an actor.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Item], Any]],
        *,
        most: int | None = None,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        self._ray = connect()
        self._make, self._most, self._cpus, self._gpus = make, most, cpus, gpus
        refuse_no_slot(slots(cpus=cpus, gpus=gpus), cpus=cpus, gpus=gpus)
        self._actor = self._ray.remote(_Host).options(
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._starting: dict[Any, Any] = {}
        self._running: dict[Any, tuple[Any, Item]] = {}
        self._idle: list[Any] = []
        self._lost_starts = 0  # since an actor started

    def __enter__(self) -> RayActors[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dismiss(
            [*self._starting.values(), *(actor for actor, _ in self._running.values()), *self._idle]
        )
        self._starting, self._running = {}, {}

    def outcomes(self, items: Iterable[Item]) -> Iterator[Outcome]:
        """The outcome of every item, as they end.

        Raises FsmmError where a worker cannot be made: what is at fault on one machine is so on all, as a rule.
        """
        queue, losses = deque(items), Counter[Item]()
        while queue or self._running:
            self._hire(len(queue))
            while queue and self._idle:
                actor, item = self._idle.pop(), queue.popleft()
                self._running[actor.do.remote(item)] = (actor, item)
            for reference in ended(self._ray, [*self._running, *self._starting], _PAUSE):
                if reference in self._starting:
                    self._started(reference)
                    continue
                actor, item = self._running.pop(reference)
                outcome = outcome_of(self._ray, reference, item)
                if outcome is not None:
                    self._idle.append(actor)
                    yield outcome
                    continue
                self._dismiss(self._idle)  # Some may have been lost with it; an item is not to find that out.
                losses[item] += 1
                if losses[item] < TRIES:
                    queue.appendleft(item)
                else:
                    yield given_up(item)

    def _hire(self, waiting: int) -> None:
        """Ask for as many actors as the cluster has room for now, no more than there are items."""
        room = slots(cpus=self._cpus, gpus=self._gpus)
        held = len(self._starting) + len(self._running) + len(self._idle)
        wanted = min(self._most or room, room, len(self._running) + waiting)
        for _ in range(wanted - held):
            actor = self._actor.remote(self._make, versions())
            self._starting[actor.ready.remote()] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        outcome = outcome_of(self._ray, reference, "")
        if outcome is None:  # Its machine was lost, or its process ended; another is asked for.
            self._lost_starts += 1
            if self._lost_starts >= _STARTS:
                raise FsmmError(
                    f"Workers of the Ray cluster were lost {_STARTS} times while they started, perhaps for want of "
                    "memory."
                )
            return
        self._lost_starts = 0
        if outcome.reason:
            raise FsmmError(f"A worker of the Ray cluster could not start: {outcome.reason}")
        self._idle.append(actor)

    def _dismiss(self, actors: list[Any]) -> None:
        """End actors, whatever they are doing; none of them is idle any more."""
        for actor in actors:
            self._ray.kill(actor)
        self._idle = []
