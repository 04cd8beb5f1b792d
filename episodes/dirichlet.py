"""Unbalanced queries: an episode's queries are divided among its classes, or among some of them."""

from __future__ import annotations

import numpy as np

from . import counter


def dirichlet_weights(key: np.uint64, episode: np.ndarray, classes: int, alpha: float) -> np.ndarray:
    """Weights [B, N] in Dirichlet(alpha) proportions: gamma variates, by inverting their distribution function."""
    from scipy.special import gammaincinv

    gamma = gammaincinv(alpha, counter.uniform(counter.words(key, episode, classes)))
    found: np.ndarray = np.maximum(gamma, 1e-300)
    return found


def chosen_classes(key: np.uint64, episode: np.ndarray, left: np.ndarray, count: int) -> np.ndarray:
    """A uniformly random choice [B, N] of ``count`` classes of each episode, bool.

    left: the clips [B, N] that each class can give. Where the episode has fewer classes, all are chosen.
    """
    classes = left.shape[1]
    if count >= classes:
        return np.ones(left.shape, bool)
    drawn = counter.subset(counter.words(key, episode, count), np.full(len(left), classes))
    chosen = np.zeros(left.shape, bool)
    np.put_along_axis(chosen, drawn.astype(np.int64), True, axis=1)
    return chosen


def shared_counts(weight: np.ndarray, left: np.ndarray, total: int) -> np.ndarray:
    """The numbers of queries of each class, int64 [B, N], in proportion to weights [B, N] that are not negative.

    They sum to ``total``, or to what the classes of positive weight can give where that is less. left: the clips
    [B, N] that each class can give; a class's deficit is shared among the others in proportion. Fractions are rounded
    by largest remainders, so that equal weights give total / N to each class.
    """
    counts = np.zeros(left.shape, np.int64)
    for _ in range(left.shape[1]):
        room = np.where(weight > 0, left - counts, 0)
        missing = np.minimum(total - counts.sum(1, keepdims=True), room.sum(1, keepdims=True))
        share = np.where(room > 0, weight, 0.0)
        share = missing * share / np.maximum(share.sum(1, keepdims=True), 1e-300)
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
