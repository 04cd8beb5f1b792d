"""Unbalanced queries: an episode's queries are divided among its classes, or among some of them."""

from __future__ import annotations

import numpy as np

from . import counter

_TINY = 1e-300


def dirichlet_weights(key: np.uint64, episode: np.ndarray, classes: int, alpha: float) -> np.ndarray:
    """Weights [B, N] in Dirichlet(alpha) proportions: gamma variates, by inverting their distribution function."""
    from scipy.special import gammaincinv, gammaln

    chance = counter.uniform(counter.words(key, episode, classes))
    gamma: np.ndarray = gammaincinv(alpha, chance)
    tiny = gamma < _TINY
    if tiny.any():
        # So near to zero the distribution function is x^alpha / Gamma(alpha + 1), and logarithms do not underflow.
        logs = np.log(np.maximum(gamma, _TINY))
        logs[tiny] = (np.log(np.maximum(chance[tiny], _TINY)) + gammaln(alpha + 1)) / alpha
        rows = tiny.any(1)
        gamma[rows] = _in_steps(logs[rows])
    return np.maximum(gamma, _TINY)


def _in_steps(logs: np.ndarray) -> np.ndarray:
    """Weights [B, N] of these logarithms, the greatest 1; one that is far below the next greater is so far below alone.

    A share of e^-40 is no query. With that as the greatest step down, what the first class cannot give goes to the
    second, although the proportion of the two may be no number.
    """
    order = np.argsort(-logs, axis=1, kind="stable")
    step = np.minimum(-np.diff(np.take_along_axis(logs, order, 1), axis=1), 40.0)
    weight = np.empty(logs.shape)
    np.put_along_axis(weight, order[:, :1], 1.0, 1)
    np.put_along_axis(weight, order[:, 1:], np.exp(-step.cumsum(1)), 1)
    return weight


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
