"""Logits from inner products: when a split is small, one matrix of all clips replaces every gather of features.

Methods whose logits depend on features through inner products alone read their few hundred numbers an episode from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import TensorTable
from ...episodes.sampler import EpisodeIndex
from .episode_test import EpisodeTest
from .shortcut import Scorer

MAX_CLIPS = 6000  # 144 MB of float32
# One product of two matrices makes inner products this many times as fast as products of gathered clips do.
BETTER_RATE = 4


def plain_points(bank: FeatureBank) -> Tensor | None:
    """Features [n, D] of a bank of pooled features of one modality, held in memory; None where there is more to it."""
    table = next(iter(bank.tables.values())) if len(bank.tables) == 1 else None
    return table.x[:, 0] if isinstance(table, TensorTable) and table.steps == 1 else None


def unit_points(bank: FeatureBank) -> Tensor | None:
    """The features of :func:`plain_points`, each of length one, in float32."""
    x = plain_points(bank)
    return None if x is None else F.normalize(x.float(), dim=-1)


class Products:
    """What a method reads of the inner products of all clips, for a batch of drawn episodes.

    gram: inner products [n, n] of the points of all clips. support, query: the rows of the drawn clips, int64 [B, N, K]
    and [B, Q].
    """

    def __init__(self, gram: Tensor, index: EpisodeIndex) -> None:
        self.gram = gram
        self.support, self.query = index.support.to(gram.device), index.query.to(gram.device)

    @property
    def query_support(self) -> Tensor:
        """Inner products of queries and supports, [B, Q, N, K]."""
        place = self.query[:, :, None] * len(self.gram) + self.support.flatten(1)[:, None, :]
        return self.gram.view(-1).take(place).unflatten(-1, self.support.shape[1:])

    @property
    def within(self) -> Tensor:
        """Inner products of the supports of each class, [B, N, K, K]."""
        place = self.support[..., :, None] * len(self.gram) + self.support[..., None, :]
        return self.gram.view(-1).take(place)

    @property
    def among_supports(self) -> Tensor:
        """Inner products of all supports of an episode, class by class, [B, N*K, N*K]."""
        rows = self.support.flatten(1)
        return self.gram.view(-1).take(rows[:, :, None] * len(self.gram) + rows[:, None, :])

    @property
    def query_square(self) -> Tensor:
        """Squared lengths of the queries, [B, Q]."""
        return self.gram.diagonal()[self.query]

    @property
    def support_square(self) -> Tensor:
        """Squared lengths of the supports, [B, N, K]."""
        return self.gram.diagonal()[self.support]

    def squared_distance_to_mean(self) -> Tensor:
        """Squared distances [B, Q, N] of queries to the means of each class's supports."""
        norm = self.within.mean((2, 3))[:, None]
        return (self.query_square[..., None] + norm - 2 * self.query_support.mean(-1)).clamp(min=0)

    def cosine_to_mean(self) -> Tensor:
        """Cosines [B, Q, N] of queries and the means (or sums) of each class's supports."""
        own = self.query_square.clamp(min=0).sqrt()[..., None]
        length = self.within.sum((2, 3)).clamp(min=0).sqrt()[:, None]
        return self.query_support.sum(-1) / (own * length).clamp(min=1e-12)


@dataclass(frozen=True, kw_only=True)
class FromGram:
    """Logits from inner products of all clips' points.

    logits: maps the products of a batch of episodes to logits [B, Q, N]; or, for methods that read more than products,
    ``scorer`` makes such a function from the matrix [n, n], the points [n, D] and the bank, once a test.
    points: what of a bank's clips is multiplied, [n, D]; None where the bank has no such thing.
    """

    logits: Callable[[Products], Tensor] | None = None
    scorer: Callable[[Tensor, Tensor, FeatureBank], Callable[[Products], Tensor]] | None = None
    points: Callable[[FeatureBank], Tensor | None] = plain_points

    def saves(self, test: EpisodeTest) -> float:
        """Scoring E episodes takes E Q N products of gathered clips; the matrix takes n^2 / 2, at a better rate.

        Below three quarters the estimate is too rough, and the matrix is not made.
        """
        n = len(test.bank)
        if not test.complete or n > MAX_CLIPS:
            return 0.0
        share = 1 - n * n / (2 * BETTER_RATE * test.comparisons)
        return share if share >= 0.75 and self._possible(test) else 0.0

    def _possible(self, test: EpisodeTest) -> bool:
        """Whether the bank has points, by its first clip."""
        return self.points(test.bank.rows(np.array([0]))) is not None

    @torch.no_grad()
    def prepare(self, test: EpisodeTest) -> Scorer:
        x = self.points(test.bank)
        if x is None:
            raise TypeError("FromGram was asked to prepare a bank without points")
        gram = x.float() @ x.float().T
        read = self.scorer(gram, x, test.bank) if self.scorer is not None else self.logits
        if read is None:
            raise TypeError("FromGram needs logits or a scorer")
        logits = read
        return Scorer(lambda index: logits(Products(gram, index)))
