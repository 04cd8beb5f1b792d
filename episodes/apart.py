"""Supports and queries of an episode that share no group, uniform over all such draws.

Once its classes are drawn, every choice of K supports and M queries a class in which no group has clips on both sides
is equally likely. Classes that share no group with one another are drawn alone; the others together, as one problem.

A problem is drawn by rejection. A set A of groups is proposed, whose clips may be supports while the clips of the other
groups may be queries, and then uniform supports and queries that respect it; a clip that shares its group with no other
may be either. A proposal is accepted so that what remains is uniform:

- A is proposed by its size alone, with weights that no set of that size exceeds. Let W(A) be the number of supports and
  queries that respect A; the set is kept with probability W(A) over its bound.
- A draw that touches s groups on the side of the supports and q on the other respects many sets A. Each set has the
  weight tilt^|A| (1 - tilt)^(groups not in A), so that they weigh tilt^s (1 - tilt)^q together, and the draw is kept in
  inverse proportion. Any tilt gives the same law; it is chosen so that few proposals are lost.

Every round of proposals has chance of its own for each episode, so that an episode depends on no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..cache.bank import FeatureBank
from ..errors import UsageError
from . import counter
from .apart_classes import GroupedClasses, Weights, log_choose
from .protocol import Protocol, TooFew, bounds
from .supply import Drawn

ROUNDS = 2000
TILTS = (0.5, 0.2, 0.1, 0.05, 0.02)
# Each tilt is tried for a few rounds on this many episodes, whose numbers no run reaches.
PILOT, PILOT_FIRST, PILOT_ROUNDS = 64, 1 << 40, 3
# What the random numbers of a problem are for.
_SIZE, _KEEP_SET, _KEEP_DRAW, _GROUPS, _LONE, _SUPPORT, _QUERY = range(7)


class ApartSupply:
    """The supply of a sampler whose supports and queries share no group.

    Raises UsageError for protocols that have no such form.
    """

    def __init__(self, bank: FeatureBank, protocol: Protocol) -> None:
        if protocol.dirichlet is not None or protocol.small_classes == "short":
            raise UsageError(
                "With --no-shared-group every class has its whole number of queries; leave out --dirichlet, and use "
                "--small-classes refuse or exclude."
            )
        self.bank, self.protocol = bank, protocol
        self.classes = GroupedClasses(bank)
        self.shots = bounds(protocol.k_shot)[1]
        self.most = self.room(self.shots)
        self.enough = self.most >= protocol.n_query
        self._tilts: dict[tuple[int, int], float] = {}

    def draw(self, episode: np.ndarray, classes: np.ndarray, shots: int) -> Drawn:
        tilt = self._tilt(classes.shape[1], shots)
        support = np.empty((*classes.shape, shots), np.int64)
        query = np.empty((*classes.shape, self.protocol.n_query), np.int64)
        for problems in self._problems(episode, classes, shots, tilt=tilt):
            at = (problems.place[:, None], problems.slots)
            support[at], query[at] = problems.solve()
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
        self, episode: np.ndarray, classes: np.ndarray, shots: int, *, tilt: float
    ) -> Iterator[Problems]:
        """The problems of the episodes, those of equally many classes at once."""
        weights = self.classes.weights(shots, self.protocol.n_query)
        for place, slots in self.classes.parts(classes):
            yield Problems(
                supply=self,
                weights=weights,
                place=place,
                slots=slots,
                episode=episode[place],
                of=classes[place[:, None], slots],
                tilt=tilt,
            )

    def _tilt(self, ways: int, shots: int) -> float:
        """The tilt that loses the fewest proposals on pilot episodes of this shape."""
        if (ways, shots) not in self._tilts:
            usable, episode = np.flatnonzero(self.enough), PILOT_FIRST + np.arange(PILOT)
            words = counter.words(counter.key(self.protocol.seed, "classes"), episode, ways)
            classes = usable[counter.subset(words, np.full(PILOT, len(usable)))]
            kept = [
                sum(
                    problems.kept(PILOT_ROUNDS)
                    for problems in self._problems(episode, classes, shots, tilt=tilt)
                )
                for tilt in TILTS
            ]
            self._tilts[ways, shots] = TILTS[int(np.argmax(kept))]
        return self._tilts[ways, shots]


@dataclass(kw_only=True)
class Problems:
    """P problems of w classes each, which are drawn at once."""

    supply: ApartSupply
    weights: Weights
    """The numbers of supports and queries that classes give."""
    place: np.ndarray
    """The episode of each problem, int [P], as an index into the batch."""
    slots: np.ndarray
    """The classes of each problem, int [P, w], as indices into the episode's classes."""
    episode: np.ndarray
    """The number of the episode of each problem, int64 [P]."""
    of: np.ndarray
    """The classes of each problem, int64 [P, w]."""
    tilt: float
    """The tilt of the proposals."""

    def __post_init__(self) -> None:
        classes, shots, queries = self.supply.classes, self.weights.shots, self.weights.queries
        self.groups, self.sizes = classes.groups_of(self.of)  # [P, G] and [P, w, G]
        self.count = (self.groups >= 0).sum(1)
        sizes = np.arange(self.groups.shape[1] + 1)
        bound = self.weights.bound(self.of, *_extremes(self.sizes, self.groups >= 0))  # [P, w, G + 1]
        rest = self.count[:, None] - sizes
        log_weight = log_choose(self.count[:, None], sizes) + bound.sum(1)
        log_weight += sizes * np.log(self.tilt) + np.maximum(rest, 0) * np.log1p(-self.tilt)
        log_weight[rest < 0] = -np.inf
        top = log_weight.max(1, keepdims=True)
        self.possible = np.isfinite(top[:, 0])
        with np.errstate(invalid="ignore"):
            self.cumulative = np.where(np.isfinite(top), np.exp(log_weight - top), 0).cumsum(1)
        self.bound = bound.sum(1)
        most_s = np.minimum(self.of.shape[1] * shots, self.count)
        most_q = np.minimum(self.of.shape[1] * queries, self.count - most_s)
        self.most_touched = self._penalty(most_s, most_q)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """The bank rows of the supports [P, w, K] and of the queries [P, w, M].

        Raises TooFew, naming the classes, where no draw is found.
        """
        shape = self.of.shape
        support = np.empty((*shape, self.weights.shots), np.int64)
        query = np.empty((*shape, self.weights.queries), np.int64)
        left = np.flatnonzero(self.possible)
        for number in range(ROUNDS):
            if not len(left):
                break
            kept, support_kept, query_kept = self._round(left, number)
            support[left[kept]], query[left[kept]] = support_kept, query_kept
            left = np.delete(left, kept)
        if stuck := [*np.flatnonzero(~self.possible), *left]:
            raise TooFew(self._stuck(stuck[0]))
        return support, query

    def kept(self, rounds: int) -> int:
        """The number of proposals that are kept in this many rounds."""
        all_of_them = np.flatnonzero(self.possible)
        return sum(len(self._round(all_of_them, number)[0]) for number in range(rounds))

    def _round(self, left: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One proposal for each problem of ``left``: the indices of those that are kept, their supports and queries."""
        purpose = counter.key(self.supply.protocol.seed, f"apart/{number}")
        state = counter.bits(counter.states(purpose, self.episode[left]), self.slots[left, 0])
        size = self._sizes(left, _uniform(state, _SIZE))
        lot = counter.bits(state, np.full(1, _GROUPS))
        last = _last_lot(lot, self.groups[left], size)
        inside = (counter.bits(lot[:, None], self.groups[left]) <= last[:, None]) & (size > 0)[:, None]
        taken = (self.sizes[left] * (inside & (self.groups[left] >= 0))[:, None]).sum(2)
        log_kept = self.weights.log_ways(self.of[left], taken).sum(1) - self.bound[left, size]
        good = np.flatnonzero(np.log(_uniform(state, _KEEP_SET)) < log_kept)
        draws = self.supply.classes.draw_apart(
            of=self.of[left[good]],
            weights=self.weights,
            taken=taken[good],
            lot=lot[good],
            last=np.where(size[good] > 0, last[good], 0),
            chance=[counter.bits(state[good], np.full(1, use)) for use in (_LONE, _SUPPORT, _QUERY)],
        )
        touched = self._penalty(*(self.supply.classes.touched(rows) for rows in draws))
        keep = np.log(_uniform(state[good], _KEEP_DRAW)) < touched - self.most_touched[left[good]]
        return good[keep], draws[0][keep], draws[1][keep]

    def _sizes(self, left: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """The number of groups in each proposed set, int [P']."""
        ladder = self.cumulative[left]
        return (ladder <= (chance * ladder[:, -1])[:, None]).sum(1)

    def _penalty(self, support_groups: np.ndarray, query_groups: np.ndarray) -> np.ndarray:
        """What a draw that touches so many groups gains, up to a constant, by the sets that it respects; log, [P]."""
        return -support_groups * np.log(self.tilt) - query_groups * np.log1p(-self.tilt)

    def _stuck(self, problem: int) -> str:
        names = [repr(self.supply.bank.class_names[c]) for c in self.of[problem]]
        which = f"Class {names[0]}" if len(names) == 1 else f"Classes {', '.join(names[:-1])} and {names[-1]}"
        return (
            f"{which} of episode {self.episode[problem]} have {self.count[problem]} groups with several clips, and no "
            f"draw of {self.weights.shots} supports and {self.weights.queries} queries a class was found in which the "
            "sides share none of them: lower --n-query, --k-shot or --n-way, or name groups by --support-groups."
        )


def _extremes(sizes: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest and the most clips [P, w, G + 1] that 0 .. G of the groups hold of each class.

    sizes: the clips [P, w, G] of each class in each group; real: bool [P, G], false for padding.
    """
    hidden = np.where(real[:, None], sizes, np.iinfo(np.int32).max)
    fewest = np.sort(hidden, axis=2).cumsum(2)
    most = -np.sort(-np.where(real[:, None], sizes, 0), axis=2)
    start = np.zeros((*sizes.shape[:2], 1), np.int64)
    return np.concatenate([start, fewest], 2), np.concatenate([start, most.cumsum(2)], 2)


def _uniform(state: np.ndarray, use: int) -> np.ndarray:
    """Random numbers in (0, 1), one for each state [P]."""
    return counter.uniform(counter.bits(state, np.full(1, use)) >> np.uint64(32))


def _last_lot(lot: np.ndarray, groups: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The lot of the last group of the set: the groups [P, G] with the ``size`` [P] smallest lots are in it."""
    lots = counter.bits(lot[:, None], groups)
    lots[groups < 0] = np.iinfo(np.uint64).max
    lots.sort(axis=1)
    return np.take_along_axis(lots, np.maximum(size - 1, 0)[:, None], 1)[:, 0] if lots.shape[1] else lot
