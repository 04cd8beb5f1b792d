"""What the two ways to draw supports and queries apart have in common: problems that are drawn at once, in rounds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from . import counter
from .apart_classes import GroupedClasses
from .apart_weights import Weights

ROUNDS = 2000


@dataclass(frozen=True)
class Task:
    """What is drawn of each class."""

    classes: GroupedClasses
    shots: int
    """The number K of supports."""
    queries: int
    """The number M of queries."""
    seed: int
    """The seed of the episodes."""
    most: np.ndarray
    """The most queries that each class has beside its supports, int64 [C]."""
    weights: Weights
    """The numbers of draws of each class."""


class Found(NamedTuple):
    """The bank rows of the supports [P, w, K] and queries [P, w, M], and the problems for which none were found."""

    support: np.ndarray
    query: np.ndarray
    stuck: np.ndarray


@dataclass(kw_only=True)
class Problems(ABC):
    """P problems of w classes each, which are drawn at once."""

    task: Task
    episode: np.ndarray
    """The number of the episode of each problem, int64 [P]."""
    slot: np.ndarray
    """The place in its episode of the first class of each problem, int [P]; it tells an episode's problems apart."""
    of: np.ndarray
    """The classes of each problem, int64 [P, w]."""

    def __post_init__(self) -> None:
        self.possible = np.ones(len(self.of), bool)
        """False for problems of which it is known that they have no solution."""

    def solve(self) -> Found:
        """A uniform draw for each problem, in rounds of proposals."""
        support = np.empty((*self.of.shape, self.task.shots), np.int64)
        query = np.empty((*self.of.shape, self.task.queries), np.int64)
        left = np.flatnonzero(self.possible)
        for number in range(ROUNDS):
            if not len(left):
                break
            kept, support_kept, query_kept = self.round(left, number)
            support[left[kept]], query[left[kept]] = support_kept, query_kept
            left = np.delete(left, kept)
        return Found(support, query, np.concatenate([np.flatnonzero(~self.possible), left]))

    def kept(self, rounds: int) -> int:
        """The number of proposals that are kept in this many rounds for all problems."""
        everything = np.flatnonzero(self.possible)
        return sum(len(self.round(everything, number)[0]) for number in range(rounds))

    @abstractmethod
    def round(self, left: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One proposal for each problem of ``left``: the indices of those that are kept, their supports and queries."""

    def states(self, left: np.ndarray, number: int) -> np.ndarray:
        """The states of the chance of a round, uint64, one for each problem of ``left``."""
        purpose = counter.key(self.task.seed, f"apart/{number}")
        return counter.bits(counter.states(purpose, self.episode[left]), self.slot[left])


def state_for(state: np.ndarray, use: int) -> np.ndarray:
    """The state [P] of one use of each state [P]."""
    return counter.bits(state, np.full(1, use))


def uniform_for(state: np.ndarray, use: int) -> np.ndarray:
    """Random numbers in (0, 1) for one use of each state [P]."""
    return counter.uniform(state_for(state, use) >> np.uint64(32))
