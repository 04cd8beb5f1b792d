"""Drawing apart, the groups of the supports' side first.

A set A of groups is proposed, whose clips may be supports while the clips of the other groups may be queries, and then
uniform supports and queries that respect it; a clip that shares its group with no other may be either. A proposal is
accepted so that what remains is uniform:

- A is proposed by its size alone, with weights that no set of that size exceeds. Let W(A) be the number of supports and
  queries that respect A; the set is kept with the probability that W(A) has to its bound.
- A draw that touches s groups on the side of the supports and q on the other respects many sets A. Each set has the
  weight tilt^|A| (1 - tilt)^(groups not in A), so that they weigh tilt^s (1 - tilt)^q together, and the draw is kept in
  inverse proportion. Any tilt gives the same law; it is chosen so that few proposals are lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import counter
from .apart_classes import LONE, PADDING, log_choose
from .apart_problems import Problems, state_for, uniform_for

TILTS = (0.5, 0.2, 0.1, 0.05, 0.02)
_ABSENT = np.iinfo(np.uint64).max
# What the random numbers of a problem are for.
_SIZE, _KEEP_SET, _KEEP_DRAW, _GROUPS, _LONE, _SUPPORT, _QUERY = range(7)


@dataclass(kw_only=True)
class SetsFirst(Problems):
    """Problems whose groups are divided first."""

    tilt: float
    """The tilt of the proposals."""

    def __post_init__(self) -> None:
        classes, shots, queries = self.task.classes, self.task.shots, self.task.queries
        self.groups, self.sizes = classes.groups_of(self.of)  # [P, G] and [P, w, G]
        self.count = (self.groups >= 0).sum(1)
        sizes = np.arange(self.groups.shape[1] + 1)
        bound = self.task.weights.bound(self.of, *_extremes(self.sizes, self.groups >= 0))  # [P, w, G + 1]
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

    def round(self, left: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One proposal for each problem of ``left``: the indices of those that are kept, their supports and queries."""
        state = self.states(left, number)
        size = self._sizes(left, uniform_for(state, _SIZE))
        lot = state_for(state, _GROUPS)
        last = _last_lot(lot, self.groups[left], size)
        inside = (counter.bits(lot[:, None], self.groups[left]) <= last[:, None]) & (size > 0)[:, None]
        taken = (self.sizes[left] * (inside & (self.groups[left] >= 0))[:, None]).sum(2)
        log_kept = self.task.weights.log_ways(self.of[left], taken).sum(1) - self.bound[left, size]
        good = np.flatnonzero(np.log(uniform_for(state, _KEEP_SET)) < log_kept)
        draws = self._draws(
            of=self.of[left[good]],
            taken=taken[good],
            lot=lot[good],
            last=np.where(size[good] > 0, last[good], 0),
            state=state[good],
        )
        touched = self._penalty(*(self.task.classes.touched(rows) for rows in draws))
        keep = np.log(uniform_for(state[good], _KEEP_DRAW)) < touched - self.most_touched[left[good]]
        return good[keep], draws[0][keep], draws[1][keep]

    def _sizes(self, left: np.ndarray, chance: np.ndarray) -> np.ndarray:
        """The number of groups in each proposed set, int [P']."""
        ladder = self.cumulative[left]
        return (ladder <= (chance * ladder[:, -1])[:, None]).sum(1)

    def _penalty(self, support_groups: np.ndarray, query_groups: np.ndarray) -> np.ndarray:
        """What a draw that touches so many groups gains, up to a constant, by the sets that it respects; log, [P]."""
        return -support_groups * np.log(self.tilt) - query_groups * np.log1p(-self.tilt)

    def _draws(
        self, of: np.ndarray, taken: np.ndarray, lot: np.ndarray, last: np.ndarray, state: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Uniform supports [P, w, K] and queries [P, w, M] of the classes [P, w] that respect a set of groups.

        taken: the clips [P, w] of each class in the set; lot, last: uint64 [P], the chance of the groups' lots and the
        last lot in the set. state: uint64 [P].
        """
        classes, shots, queries = self.task.classes, self.task.shots, self.task.queries
        group = classes.clip_group[of]
        chance = [state_for(state, use) for use in (_LONE, _SUPPORT, _QUERY)]
        inside = (counter.bits(lot[:, None, None], group) <= last[:, None, None]) & (group >= 0)
        place = np.arange(np.prod(group.shape[1:]), dtype=np.uint64).reshape(group.shape[1:])
        lone = self.task.weights.lone_supports(
            of, taken, counter.bits(chance[0][:, None], np.arange(of.shape[1]))
        )
        keys = counter.bits(chance[1][:, None, None], place[None])
        first = _smallest(keys, group == LONE, shots)
        others = _smallest(keys, inside, shots)
        slot = np.arange(shots)
        behind = np.maximum(slot - lone[..., None], 0)
        support = np.where(slot < lone[..., None], first, np.take_along_axis(others, behind, 2))
        free = ~inside & (group != PADDING)
        np.put_along_axis(free, support, False, 2)
        query = _smallest(counter.bits(chance[2][:, None, None], place[None]), free, queries)
        rows = classes.clips[of]
        return np.take_along_axis(rows, support, 2), np.take_along_axis(rows, query, 2)


def _extremes(sizes: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fewest and the most clips [P, w, G + 1] that 0 .. G of the groups hold of each class.

    sizes: the clips [P, w, G] of each class in each group; real: bool [P, G], false for padding.
    """
    hidden = np.where(real[:, None], sizes, np.iinfo(np.int32).max)
    fewest = np.sort(hidden, axis=2).cumsum(2)
    most = -np.sort(-np.where(real[:, None], sizes, 0), axis=2)
    start = np.zeros((*sizes.shape[:2], 1), np.int64)
    return np.concatenate([start, fewest], 2), np.concatenate([start, most.cumsum(2)], 2)


def _last_lot(lot: np.ndarray, groups: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The lot of the last group of the set: the groups [P, G] with the ``size`` [P] smallest lots are in it."""
    lots = counter.bits(lot[:, None], groups)
    lots[groups < 0] = np.iinfo(np.uint64).max
    lots.sort(axis=1)
    return np.take_along_axis(lots, np.maximum(size - 1, 0)[:, None], 1)[:, 0] if lots.shape[1] else lot


def _smallest(keys: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The places [..., count] of the smallest allowed keys [..., S], in ascending order, then of others."""
    hidden = np.where(allowed, keys, _ABSENT)
    chosen = np.argpartition(hidden, min(count, hidden.shape[-1]) - 1, axis=-1)[..., :count]
    order = np.argsort(np.take_along_axis(hidden, chosen, -1), axis=-1, kind="stable")
    return np.take_along_axis(chosen, order, -1)
