"""Unbalanced queries: an episode's queries are divided among its classes in Dirichlet proportions."""

from __future__ import annotations

import numpy as np

from . import counter


def dirichlet_counts(
    key: np.uint64, episode: np.ndarray, left: np.ndarray, total: int, alpha: float
) -> np.ndarray:
    """The numbers of queries of each class, int64 [B, N], in Dirichlet(alpha) proportions.

    They sum to ``total``, or to the sum of ``left`` where that is smaller. left: the clips [B, N] that each class can
    give; a class's deficit is shared among the others in proportion. Fractions are rounded by largest remainders, so
    alpha -> infinity gives total / N to each class. Gamma variates come from inverting their distribution function.
    """
    from scipy.special import gammaincinv

    gamma = np.maximum(
        gammaincinv(alpha, counter.uniform(counter.words(key, episode, left.shape[1]))), 1e-300
    )
    counts = np.zeros(left.shape, np.int64)
    for _ in range(left.shape[1]):
        room = left - counts
        missing = total - counts.sum(1, keepdims=True)
        weight = np.where(room > 0, gamma, 0.0)
        share = missing * weight / np.maximum(weight.sum(1, keepdims=True), 1e-300)
        counts += np.minimum(largest_remainders(share, missing), room)
    return counts


def largest_remainders(share: np.ndarray, total: np.ndarray) -> np.ndarray:
    """The whole numbers [B, N] nearest to ``share`` that sum to ``total`` [B, 1].

    Where no two remainders are equal they are what the rule published with the protocol gives (Veilleux et al., 2021):
    round; while the sum is too large (small), floor (ceil) the number whose fraction is nearest to a half.
    """
    floor = np.floor(share).astype(np.int64)
    rank = np.argsort(np.argsort(floor - share, axis=1, kind="stable"), axis=1, kind="stable")
    return floor + (rank < total - floor.sum(1, keepdims=True))
