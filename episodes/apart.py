"""Supports and queries of an episode that share no group, uniform over all such draws.

Once its classes are drawn, every choice of K supports and M queries a class in which no group has clips on both sides
is equally likely. Classes that share no group with one another are drawn alone; the others together, as one problem.

Problems are drawn by rejection, in one of two ways that give the same law (``apart_supports.py``, ``apart_sets.py``):
supports first, which loses few proposals where groups are many, or the groups of the supports' side first, which loses
few where some persons do everything. Which of them, and how, is chosen on episodes that no run reaches. Every round of
proposals has chance of its own for each episode, so that an episode depends on no other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ..cache.bank import FeatureBank
from ..errors import UsageError
from . import counter
from .apart_classes import GroupedClasses
from .apart_problems import Problems, Task
from .apart_sets import TILTS, SetsFirst
from .apart_supports import SupportsFirst
from .apart_weights import Weights
from .protocol import Protocol, TooFew, bounds
from .supply import Drawn

PILOT, PILOT_FIRST, PILOT_ROUNDS = 64, 1 << 40, 3
# A proposal of supports costs less than one of groups, so it may be lost this many times as often.
CHEAPER = 4

Way = Callable[..., Problems]


class ApartSupply:
    """The supply of a sampler whose supports and queries share no group.

    Raises UsageError for protocols that have no such form.
    """

    def __init__(self, bank: FeatureBank, protocol: Protocol) -> None:
        if protocol.uneven_queries or protocol.small_classes == "short":
            raise UsageError(
                "With --no-shared-group every class has its whole number of queries; leave out --dirichlet "
                "and --query-classes, and use --small-classes refuse or exclude."
            )
        self.bank, self.protocol = bank, protocol
        self.classes = GroupedClasses(bank)
        self.shots = bounds(protocol.k_shot)[1]
        self.most = self.room(self.shots)
        self.enough = self.most >= protocol.n_query
        self._tasks: dict[int, Task] = {}
        self._ways: dict[tuple[int, int], dict[bool, Way]] = {}

    def draw(self, episode: np.ndarray, classes: np.ndarray, shots: int) -> Drawn:
        ways = self._chosen_ways(classes.shape[1], shots)
        support = np.empty((*classes.shape, shots), np.int64)
        query = np.empty((*classes.shape, self.protocol.n_query), np.int64)
        for place, slots in self.classes.parts(classes):
            problems = self._problems(
                ways[slots.shape[1] > 1], episode, classes, place=place, slots=slots, shots=shots
            )
            found = problems.solve()
            if len(found.stuck):
                raise TooFew(self._stuck(problems, int(found.stuck[0])))
            at = (place[:, None], slots)
            support[at], query[at] = found.support, found.query
        return Drawn(support=support, query=query, padded=False)

    def room(self, shots: int) -> np.ndarray:
        return self.classes.most_queries(shots)

    def refusal(self) -> str:
        worst, small = int(np.argmin(self.most)), int((~self.enough).sum())
        sizes = self.classes.group_sizes(worst)
        clips = "1 clip" if sizes == [1] else f"{sum(sizes)} clips"
        told = " and ".join(filter(None, [", ".join(map(str, sizes[:-1])), str(sizes[-1])]))
        groups = f"one group of {told}" if len(sizes) == 1 else f"{len(sizes)} groups of {told}"
        fits, n_query = int(self.most[worst]), self.protocol.n_query
        lower = f"lower --n-query to {fits}" if fits >= 1 else "lower --k-shot"
        if len(sizes) == 1:
            lower = "leave out --no-shared-group"
        more = f" ({small} classes are too small)" if small > 1 else ""
        return (
            f"Class {self.bank.class_names[worst]!r} has {clips} in {groups}; {self.shots}-shot with {n_query} queries "
            f"of other groups is more than they give{more}: {lower}, or use --small-classes exclude."
        )

    def _problems(
        self,
        way: Way,
        episode: np.ndarray,
        classes: np.ndarray,
        *,
        place: np.ndarray,
        slots: np.ndarray,
        shots: int,
    ) -> Problems:
        if shots not in self._tasks:
            queries, seed = self.protocol.n_query, self.protocol.seed
            most = self.most if shots == self.shots else self.room(shots)
            weights = Weights(self.classes.lone, self.classes.grouped, shots, queries)
            self._tasks[shots] = Task(
                self.classes, shots=shots, queries=queries, seed=seed, most=most, weights=weights
            )
        return way(
            task=self._tasks[shots],
            episode=episode[place],
            slot=slots[:, 0],
            of=classes[place[:, None], slots],
        )

    def _chosen_ways(self, ways: int, shots: int) -> dict[bool, Way]:
        """The way that loses least for problems of one class (False) and of several (True), found on a pilot."""
        if (ways, shots) not in self._ways:
            self._ways[ways, shots] = {
                several: WAYS[_best(self._kept(ways, shots, several=several))] for several in (False, True)
            }
        return self._ways[ways, shots]

    def _kept(self, ways: int, shots: int, *, several: bool) -> np.ndarray:
        """How many proposals each way keeps for the pilot's problems of one class, or of several."""
        usable, episode = np.flatnonzero(self.enough), PILOT_FIRST + np.arange(PILOT)
        words = counter.words(counter.key(self.protocol.seed, "classes"), episode, ways)
        classes = usable[counter.subset(words, np.full(PILOT, len(usable)))]
        parts = [(p, s) for p, s in self.classes.parts(classes) if (s.shape[1] > 1) == several]
        kept = np.zeros(len(WAYS), np.int64)
        for number, way in enumerate(WAYS):
            for place, slots in parts:
                problems = self._problems(way, episode, classes, place=place, slots=slots, shots=shots)
                kept[number] += problems.kept(PILOT_ROUNDS)
        return kept

    def _stuck(self, problems: Problems, number: int) -> str:
        names = [repr(self.bank.class_names[c]) for c in problems.of[number]]
        which = f"Class {names[0]}" if len(names) == 1 else f"Classes {', '.join(names[:-1])} and {names[-1]}"
        task = problems.task
        return (
            f"{which} of episode {problems.episode[number]} share groups so that no {task.shots}-shot draw with "
            f"{task.queries} queries a class was found in which none is on both sides: lower --n-query, --k-shot or "
            "--n-way, or name groups by --support-groups."
        )


WAYS: tuple[Way, ...] = (SupportsFirst, *(partial(SetsFirst, tilt=tilt) for tilt in TILTS))


def _best(kept: np.ndarray) -> int:
    """The way that kept most proposals; supports first, way 0, unless another kept several times as many."""
    best = int(kept.argmax())
    return best if kept[best] > CHEAPER * kept[0] else 0
