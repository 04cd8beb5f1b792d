"""The classes of a bank with their groups, as :mod:`fsmm.episodes.apart` draws from them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..cache.bank import FeatureBank
from .groups import group_numbers

LONE, PADDING = -1, -2


class GroupedClasses:
    """The clips of C classes with their groups.

    A clip that shares its group with no other clip of the bank is lone. clips: the bank row of each clip, int64
    [C, S], PADDING beyond a class's clips, with the clips of a group side by side; clip_group: the group's number, LONE
    or PADDING, of the same shape; count, lone, grouped: int64 [C], the numbers of all, of lone and of other clips.
    """

    def __init__(self, bank: FeatureBank) -> None:
        label, self.size = bank.label.cpu().numpy(), len(bank.class_names)
        group = group_numbers(bank)
        self.row_group = np.where(np.bincount(group)[group] > 1, group, LONE)
        order = np.lexsort((self.row_group, label))
        self.clips = _padded(order, label[order], self.size)
        self.clip_group = np.where(self.clips >= 0, self.row_group[self.clips], PADDING)
        self.lone, self.grouped = (self.clip_group == LONE).sum(1), (self.clip_group >= 0).sum(1)
        self.count = self.lone + self.grouped
        self._index_groups()

    def _index_groups(self) -> None:
        """Note where each group of each class begins among the class's clips, and how many it has."""
        self._base = len(self.row_group) + 1
        of_class, place = np.nonzero(self.clip_group >= 0)
        codes = of_class * self._base + self.clip_group[of_class, place]
        self._codes, first, self._code_size = np.unique(codes, return_index=True, return_counts=True)
        self._code_first = place[first]
        of_class, of_group = np.divmod(self._codes, self._base)
        self.class_groups = _padded(of_group, of_class, self.size, LONE)
        self._touching = self._share_a_group(of_class, of_group)

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
        return groups, self._members(of, groups[:, None, :])[1]

    def taken(self, of: np.ndarray, support: np.ndarray, *, alone: bool) -> tuple[np.ndarray, np.ndarray]:
        """What supports take from the queries of each class, as runs of its clips: first clips and lengths [P, w, R].

        support: places [P, w, K] within the classes [P, w]. alone: whether a class looks at its own supports alone.
        Runs are in ascending order and disjoint; some are empty.
        """
        group = self.clip_group[of[..., None], support]
        touched = (
            group if alone else np.broadcast_to(group.reshape(len(of), 1, -1), (*of.shape, group[0].size))
        )
        first, length = self._members(of, touched)
        first = np.concatenate([first, support], 2)
        length = np.concatenate([length, (group == LONE).astype(np.int64)], 2)
        # Of a group that several supports touch, one run is kept.
        order = np.lexsort((-length, first))
        first, length = np.take_along_axis(first, order, 2), np.take_along_axis(length, order, 2)
        length[..., 1:][first[..., 1:] == first[..., :-1]] = 0
        return first, length

    def _members(self, of: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the clips of groups [P, 1 or w, G] begin within the classes [P, w], and how many there are."""
        codes = of[:, :, None] * self._base + groups
        if not len(self._codes):
            return np.zeros(codes.shape, np.int64), np.zeros(codes.shape, np.int64)
        at = np.minimum(np.searchsorted(self._codes, codes), len(self._codes) - 1)
        held = (self._codes[at] == codes) & (groups >= 0)
        return np.where(held, self._code_first[at], 0), np.where(held, self._code_size[at], 0)

    def touched(self, rows: np.ndarray) -> np.ndarray:
        """The number of groups, lone clips aside, that the bank rows [P, ...] belong to, int [P]."""
        group = np.sort(self.row_group[rows].reshape(len(rows), int(np.prod(rows.shape[1:]))), axis=1)
        new = np.concatenate([np.ones((len(rows), 1), bool), group[:, 1:] != group[:, :-1]], 1)
        return (new & (group >= 0)).sum(1)


def log_choose(n: np.ndarray, k: np.ndarray | int) -> np.ndarray:
    """The logarithm of the binomial coefficient, -inf where there is nothing to choose."""
    from scipy.special import gammaln

    possible = (n >= 0) & (np.asarray(k) >= 0) & (n >= k)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    return np.where(possible, gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0), -np.inf)


def _padded(values: np.ndarray, of: np.ndarray, size: int, padding: int = PADDING) -> np.ndarray:
    """The values of each of ``size`` owners as a row, int64 [size, most], in their order."""
    counts = np.bincount(of, minlength=size)
    order = np.argsort(of, kind="stable")
    column = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    out = np.full((size, int(counts.max(initial=1))), padding, np.int64)
    out[of[order], column] = values[order]
    return out
