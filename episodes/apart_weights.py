"""The numbers of draws that a class has, by how many of its clips lie in a set of groups."""

from __future__ import annotations

import numpy as np

from . import counter
from .apart_classes import log_choose


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
