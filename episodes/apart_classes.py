"""The classes of a bank with their groups, as :mod:`fsmm.episodes.apart` draws from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..cache.bank import FeatureBank
from . import counter
from .groups import group_numbers

LONE, PADDING = -1, -2
_ABSENT = np.iinfo(np.uint64).max


class GroupedClasses:
    """The clips of C classes with their groups.

    A clip that shares its group with no other clip of the bank is lone. clips: the bank row of each clip, int64
    [C, S], PADDING beyond a class's clips; clip_group: the group's number, LONE or PADDING, of the same shape;
    lone, grouped: int64 [C], the numbers of lone and of other clips.
    """

    def __init__(self, bank: FeatureBank) -> None:
        label, self.size = bank.label.cpu().numpy(), len(bank.class_names)
        group = group_numbers(bank)
        self.row_group = np.where(np.bincount(group)[group] > 1, group, LONE)
        self.clips = _padded(np.arange(len(label)), label, self.size)
        self.clip_group = np.where(self.clips >= 0, self.row_group[self.clips], PADDING)
        self.lone = (self.clip_group == LONE).sum(1)
        self.grouped = (self.clip_group >= 0).sum(1)
        real = self.row_group >= 0
        codes = label[real] * (len(label) + 1) + self.row_group[real]
        self._codes, self._code_sizes = np.unique(codes, return_counts=True)
        of_class, of_group = np.divmod(self._codes, len(label) + 1)
        self._base = len(label) + 1
        self.class_groups = _padded(of_group, of_class, self.size, LONE)
        self._touching = self._share_a_group(of_class, of_group)
        self._weights: dict[tuple[int, int], Weights] = {}

    def _share_a_group(self, of_class: np.ndarray, of_group: np.ndarray) -> np.ndarray:
        """Whether two classes have clips of one group, bool [C, C]."""
        from scipy.sparse import csr_matrix

        ones = np.ones(len(of_class), np.int32)
        member = csr_matrix((ones, (of_class, of_group)), shape=(self.size, self._base))
        return (member @ member.T).toarray() > 0

    def group_sizes(self, of: int) -> list[int]:
        """The sizes of the groups of a class, the largest first; each lone clip is one."""
        own = self.clip_group[of]
        return sorted(
            [*np.unique(own[own >= 0], return_counts=True)[1].tolist(), *[1] * int(self.lone[of])],
            reverse=True,
        )

    def most_queries(self, shots: int) -> np.ndarray:
        """The most queries that each class has beside ``shots`` supports of other groups, int64 [C]; -1 for too few."""
        return np.array([self._most_queries_of(c, shots) for c in range(self.size)])

    def _most_queries_of(self, of: int, shots: int) -> int:
        sizes = np.unique(self.clip_group[of][self.clip_group[of] >= 0], return_counts=True)[1].tolist()
        reachable = 1  # Bit x is set where some groups hold x clips together.
        for size in sizes:
            reachable |= reachable << size
        lone, grouped = int(self.lone[of]), int(self.grouped[of])
        found = -1
        for taken in range(grouped + 1):
            if reachable >> taken & 1 and taken + lone >= shots:
                found = max(found, grouped - taken + lone - max(shots - taken, 0))
        return found

    def weights(self, shots: int, queries: int) -> Weights:
        """The numbers of draws of this shape, made once."""
        if (shots, queries) not in self._weights:
            self._weights[shots, queries] = Weights(self.lone, self.grouped, shots, queries)
        return self._weights[shots, queries]

    def parts(self, classes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The classes [B, N] of episodes, divided so that classes of different parts share no group.

        Yields, for each number w of classes in a part, the episode of each of the P parts, int [P], and the places of
        its classes in the episode, int [P, w].
        """
        batch, ways = classes.shape
        reach = self._touching[classes[:, :, None], classes[:, None, :]] | np.eye(ways, dtype=bool)
        for _ in range(int(np.ceil(np.log2(max(ways, 2))))):
            reach = np.matmul(reach.astype(np.float32), reach.astype(np.float32)) > 0
        part = (np.arange(batch)[:, None] * ways + reach.argmax(2)).ravel()
        order = np.argsort(part, kind="stable")
        _, first, count = np.unique(part[order], return_index=True, return_counts=True)
        for w in np.unique(count):
            flat = order[first[count == w][:, None] + np.arange(w)]
            yield flat[:, 0] // ways, flat % ways

    def groups_of(self, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The groups [P, G] of the classes [P, w], LONE for padding, and the clips [P, w, G] of each class in each."""
        groups = np.sort(self.class_groups[of].reshape(len(of), -1), axis=1)
        groups[:, 1:][groups[:, 1:] == groups[:, :-1]] = LONE
        groups = -np.sort(-groups, axis=1)
        groups = groups[:, : max(int((groups >= 0).sum(1).max(initial=0)), 1)]
        codes = of[:, :, None] * self._base + groups[:, None, :]
        at = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
        if not len(self._codes):
            return groups, np.zeros(codes.shape, np.int64)
        held = (self._codes[at] == codes) & (groups >= 0)[:, None]
        return groups, np.where(held, self._code_sizes[at], 0)

    def touched(self, rows: np.ndarray) -> np.ndarray:
        """The number of groups, lone clips aside, that the bank rows [P, ...] belong to, int [P]."""
        group = np.sort(self.row_group[rows].reshape(len(rows), int(np.prod(rows.shape[1:]))), axis=1)
        new = np.concatenate([np.ones((len(rows), 1), bool), group[:, 1:] != group[:, :-1]], 1)
        return (new & (group >= 0)).sum(1)

    def draw_apart(
        self,
        of: np.ndarray,
        weights: Weights,
        taken: np.ndarray,
        lot: np.ndarray,
        last: np.ndarray,
        chance: Sequence[np.ndarray],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Uniform supports [P, w, K] and queries [P, w, M] of the classes [P, w] that respect a set of groups.

        taken: the clips [P, w] of each class in the set; lot, last: uint64 [P], the chance of the groups' lots and the
        last lot in the set. chance: states uint64 [P], for the number of lone supports, the supports and the queries.
        """
        group = self.clip_group[of]
        inside = (counter.bits(lot[:, None, None], group) <= last[:, None, None]) & (group >= 0)
        place = np.arange(np.prod(group.shape[1:]), dtype=np.uint64).reshape(group.shape[1:])
        lone = weights.lone_supports(of, taken, counter.bits(chance[0][:, None], np.arange(of.shape[1])))
        keys = counter.bits(chance[1][:, None, None], place[None])
        shots, queries = weights.shots, weights.queries
        first = _smallest(keys, group == LONE, shots)
        others = _smallest(keys, inside, shots)
        slot = np.arange(shots)
        behind = np.maximum(slot - lone[..., None], 0)
        support = np.where(slot < lone[..., None], first, np.take_along_axis(others, behind, 2))
        free = ~inside & (group != PADDING)
        np.put_along_axis(free, support, False, 2)
        query = _smallest(counter.bits(chance[2][:, None, None], place[None]), free, queries)
        rows = self.clips[of]
        return np.take_along_axis(rows, support, 2), np.take_along_axis(rows, query, 2)


class Weights:
    """The numbers of ways to draw K supports and M queries of a class, by the clips x of it in a set of groups.

    Supports come from the set and the lone clips, queries from the other groups and the other lone clips. A class's
    numbers are relative to its largest.
    """

    def __init__(self, lone: np.ndarray, grouped: np.ndarray, shots: int, queries: int) -> None:
        self.lone, self.grouped, self.shots, self.queries = lone, grouped, shots, queries
        x = np.arange(int(grouped.max(initial=0)) + 1)[None]
        log = self._log_parts(lone[:, None], grouped[:, None], x)
        total = np.logaddexp.reduce(log, axis=0)
        total[x > grouped[:, None]] = -np.inf
        top = total.max(1, keepdims=True)
        self._log = np.where(np.isfinite(top), total - np.where(np.isfinite(top), top, 0), -np.inf)
        self._up_to = np.maximum.accumulate(self._log, axis=1)
        self._from = np.maximum.accumulate(self._log[:, ::-1], axis=1)[:, ::-1]

    def _log_parts(self, lone: np.ndarray, grouped: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The logarithms [K + 1, ...] of the ways with 0 .. K lone supports."""
        parts = []
        for j in range(self.shots + 1):
            supports = log_choose(lone, j) + log_choose(x, self.shots - j)
            parts.append(supports + log_choose(lone - j + grouped - x, self.queries))
        return np.stack(parts)

    def log_ways(self, of: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The logarithm of the number of ways for classes and clips x, both [P, w]."""
        return np.asarray(self._log[of, x])

    def bound(self, of: np.ndarray, fewest: np.ndarray, most: np.ndarray) -> np.ndarray:
        """The largest logarithm [P, w, G + 1] for x from ``fewest`` to ``most``, or above it."""
        end = self._log.shape[1] - 1
        low, high = np.minimum(fewest, end), np.minimum(most, end)
        return np.minimum(self._up_to[of[..., None], high], self._from[of[..., None], low])

    def lone_supports(self, of: np.ndarray, x: np.ndarray, word: np.ndarray) -> np.ndarray:
        """The number of lone supports of each class, int [P, w], in proportion to its ways; word: uint64 [P, w]."""
        log = self._log_parts(self.lone[of], self.grouped[of], x)
        ladder = np.exp(log - log.max(0, initial=-np.inf)).cumsum(0)
        return (ladder <= counter.uniform(word >> np.uint64(32)) * ladder[-1]).sum(0)


def log_choose(n: np.ndarray, k: np.ndarray | int) -> np.ndarray:
    """The logarithm of the binomial coefficient, -inf where there is nothing to choose."""
    from scipy.special import gammaln

    possible = (n >= 0) & (np.asarray(k) >= 0) & (n >= k)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    return np.where(possible, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def _smallest(keys: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    """The places [..., count] of the smallest allowed keys [..., S], in ascending order, then of others."""
    hidden = np.where(allowed, keys, _ABSENT)
    chosen = np.argpartition(hidden, min(count, hidden.shape[-1]) - 1, axis=-1)[..., :count]
    order = np.argsort(np.take_along_axis(hidden, chosen, -1), axis=-1, kind="stable")
    return np.take_along_axis(chosen, order, -1)


def _padded(values: np.ndarray, of: np.ndarray, size: int, padding: int = PADDING) -> np.ndarray:
    """The values of each of ``size`` owners as a row, int64 [size, most], in their order."""
    counts = np.bincount(of, minlength=size)
    order = np.argsort(of, kind="stable")
    column = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.full((size, int(counts.max(initial=1))), padding, np.int64)
    out[of[order], column] = values[order]
    return out
