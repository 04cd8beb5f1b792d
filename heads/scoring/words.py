"""Logits from clips and class words: each clip meets the words of each class once, however many episodes ask for it.

For methods whose logits compare a query with the words of a class and nothing else, the clips and classes of a split
make one matrix, and an episode is read off it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ..head import Head
from .episode_test import EpisodeTest
from .pairs import as_queries
from .shortcut import Scorer

_MOST_SCORES = 36_000_000  # 144 MB of float32
_AT_ONCE = (
    64  # clips of a part of the matrix, so that what is made of their features fits the processor's cache
)


@dataclass(frozen=True, kw_only=True)
class FromWords:
    """Logits from a matrix of all clips and the words of all classes.

    head: whose logits they are. A query's logit of a class is a function of the query and of that class's words alone,
    with or without supports.
    """

    head: Head[Any]

    def saves(self, test: EpisodeTest) -> float:
        """The clips and classes of the split against the comparisons that the episodes ask for."""
        scores = len(test.bank) * len(test.bank.class_names)
        if not test.shows_every_query or test.bank.words is None or scores > _MOST_SCORES:
            return 0.0
        return max(1 - scores / test.comparisons, 0.0)

    def prepare(self, test: EpisodeTest) -> Scorer:
        """A scorer that reads the matrix."""
        matrix = self.matrix(test.bank)

        def score(index: EpisodeIndex) -> Tensor:
            query, classes = index.query.to(matrix.device), index.classes.to(matrix.device)
            place = query[:, :, None] * matrix.shape[1] + classes[:, None]
            return matrix.view(-1).take(place)

        return Scorer(score)

    @torch.no_grad()
    def matrix(self, bank: FeatureBank) -> Tensor:
        """Logits [n, C] of every clip of the split for each of its classes."""
        rows = torch.arange(len(bank), device=bank.device)
        return torch.cat([self._logits(bank, part) for part in rows.split(_AT_ONCE)])

    def _logits(self, bank: FeatureBank, rows: Tensor) -> Tensor:
        """Logits [r, C] of some clips, by one episode of all classes in which these clips are the queries."""
        query = {m: as_queries(table.gather(rows)) for m, table in bank.tables.items()}
        classes = torch.arange(len(bank.class_names), device=bank.device)
        nothing = torch.zeros((len(classes), 0), dtype=torch.int64, device=bank.device)
        support = {m: table.gather(nothing)[None] for m, table in bank.tables.items()}
        label = torch.zeros((1, len(rows)), dtype=torch.int64, device=bank.device)
        words = None if bank.words is None else bank.words[None]
        logits = self.head(Episodes(support, query, label, bank.class_id[classes][None], words))
        return logits[0].float()
