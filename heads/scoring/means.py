"""Logits from class means: prototypes by one bag sum over the table, without a copy of the supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ...episodes.sampler import EpisodeIndex
from .buffers import gather_rows
from .episode_test import EpisodeTest
from .shortcut import Scorer


@dataclass(frozen=True)
class FromMeans:
    """Logits [B, Q, N] of queries [B, Q, D] and class means [B, N, D].

    logits: computes them; what is the same for every class of a query may be left out, as posteriors and predictions do
    not need it.
    """

    logits: Callable[[Tensor, Tensor], Tensor]

    def saves(self, test: EpisodeTest) -> float:
        """A copy of the supports and fresh memory for the queries, where pooled features lie in memory."""
        return 0.25 if test.complete and test.plain_table is not None else 0.0

    def prepare(self, test: EpisodeTest) -> Scorer:
        table = test.plain_table
        if table is None:
            raise TypeError("FromMeans was asked to prepare a bank without a table of pooled features")
        x = table.x[:, 0]

        def score(index: EpisodeIndex) -> Tensor:
            batch, ways, shots = index.support.shape
            bags = index.support.reshape(batch * ways, shots).to(x.device)
            mean = F.embedding_bag(bags, x, mode="mean").view(batch, ways, -1)
            return self.logits(gather_rows(x, index.query), mean)

        return Scorer(score)
