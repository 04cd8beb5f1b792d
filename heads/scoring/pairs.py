"""Logits from pairs: when episodes ask for the same pairs of clips again and again, each pair is scored once.

For methods whose one-shot logits compare a query with a support and nothing else, all pairs of a split make one matrix,
and an episode is read off it. Several supports a class are pooled where the method can do so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ..head import Head
from .cost import peak_bytes
from .episode_test import EpisodeTest
from .once_per_clip import OncePerClip
from .shortcut import Scorer

MAX_CLIPS = 6000  # 144 MB of float32
_SIDES, _TILE_BYTES, _MOST_BYTES = (256, 64), 16 << 20, 256 << 20

PairScores = Callable[[Tensor, Tensor], Tensor]
BothRoles = Callable[[Stream, Stream], tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class FromPairs:
    """Logits from a matrix of all pairs of clips.

    head: whose one-shot logits they are. pool: makes logits [B, Q, N] of one-shot logits [B, Q, N, K]; None where
    several supports cannot be scored one by one. once_per_clip: encodes each clip once for all its pairs; None: every
    tile of pairs is one episode of ``head``. both_roles: scores two groups of clips [r, T, D] and [c, T, D] in both
    roles, as logits [r, c] and [c, r]; None where the roles share no work.
    """

    head: Head[Any]
    pool: Callable[[Tensor], Tensor] | None = None
    once_per_clip: OncePerClip[Any, Any] | None = None
    both_roles: BothRoles | None = None

    def saves(self, test: EpisodeTest) -> float:
        """The pairs of all clips against the pairs that the episodes ask for; below a fifth the matrix is not made."""
        n, shots = len(test.bank), test.shots
        poolable = shots == (1, 1) or self.pool is not None
        if not (test.complete and poolable) or n > MAX_CLIPS:
            return 0.0
        share = 1 - n * n / (test.comparisons * shots[0])
        return share if share >= 0.2 else 0.0

    def prepare(self, test: EpisodeTest) -> Scorer:
        matrix = self.matrix(test.bank)

        def score(index: EpisodeIndex) -> Tensor:
            query, support = index.query.to(matrix.device), index.support.to(matrix.device)
            place = query[:, :, None] * len(matrix) + support.flatten(1)[:, None]
            pair = matrix.view(-1).take(place).unflatten(-1, support.shape[1:])
            if pair.shape[-1] == 1 or self.pool is None:
                return pair.squeeze(-1)
            return self.pool(pair)

        return Scorer(score)

    @torch.no_grad()
    def matrix(self, bank: FeatureBank) -> Tensor:
        """One-shot logits [n, n] of every clip as a query (rows) against every clip as the support of a class."""
        if self.both_roles is not None:
            return self._exchanged(bank, self.both_roles)
        kept = self.once_per_clip is not None and self.once_per_clip.fits(bank)
        score = (
            self.once_per_clip.pair_scores(bank) if self.once_per_clip and kept else self._one_episode(bank)
        )
        parts = torch.arange(len(bank), device=bank.device).split(tile_side(score, bank))
        rows = [torch.cat([score(row, column).float() for column in parts], 1) for row in parts]
        return torch.cat(rows)

    def _exchanged(self, bank: FeatureBank, both_roles: BothRoles) -> Tensor:
        (table,) = bank.tables.values()

        def score(rows: Tensor, columns: Tensor) -> Tensor:
            return both_roles(table.gather(rows), table.gather(columns))[0]

        parts = torch.arange(len(bank), device=bank.device).split(tile_side(score, bank))
        matrix = torch.empty(len(bank), len(bank), device=bank.device)
        for i, rows in enumerate(parts):
            here = table.gather(rows)
            for columns in parts[i:]:
                forth, back = both_roles(here, table.gather(columns))
                matrix[rows[:, None], columns], matrix[columns[:, None], rows] = forth.float(), back.float()
        return matrix

    def _one_episode(self, bank: FeatureBank) -> PairScores:
        """Pairs by one episode whose classes are the columns' clips."""

        def score(rows: Tensor, columns: Tensor) -> Tensor:
            support = {m: as_classes(t.gather(columns)) for m, t in bank.tables.items()}
            query = {m: as_queries(t.gather(rows)) for m, t in bank.tables.items()}
            label = torch.zeros((1, len(rows)), dtype=torch.int64, device=bank.device)
            logits: Tensor = self.head(Episodes(support, query, label, columns[None]))
            return logits[0]

        return score


def tile_side(score: PairScores, bank: FeatureBank) -> int:
    """Clips on each side of a tile of pairs: what a tile touches fits the cache, but enough clips share their encoding.

    Two small tiles are measured; their memory grows with the side and with its square. Where even few clips take more
    than the cache, tiles are smaller still, for the memory's sake.
    """
    small, large = min(8, len(bank)), min(16, len(bank))
    if large < 16:
        return max(len(bank), 1)
    rows = torch.arange(large, device=bank.device)
    first, second = (peak_bytes(partial(score, rows[:side], rows[:side])) for side in (small, large))
    square = max((second - 2 * first) / (large * large - 2 * small * small), 1.0)
    linear = max(first - square * small * small, 0.0) / small
    side = _SIDES[0]
    while side > 1:
        limit = _TILE_BYTES if side > _SIDES[1] else _MOST_BYTES
        if square * side * side + linear * side <= limit:
            break
        side //= 2
    return side


def as_classes(s: Stream) -> Stream:
    """Clips [n, T, D] as the single supports of n classes of one episode."""
    return Stream(s.x[None, :, None], s.present[None, :, None], s.length[None, :, None])


def as_queries(s: Stream) -> Stream:
    """Clips [n, T, D] as the queries of one episode."""
    return Stream(s.x[None], s.present[None], s.length[None])
