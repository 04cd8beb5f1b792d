"""The pair path: when episodes ask for the same pairs of clips again and again, each pair is scored once.

For heads whose one-shot logits compare a query with a support and nothing else (``pairwise``), all pairs of a split
make one matrix, and an episode is read off it. Several supports a class are pooled by the head's ``pool_shots``, where
it has one. Equal to the direct path up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ...episodes.batch import Episodes
from ...episodes.protocol import Protocol, bounds
from ...episodes.sampler import EpisodeIndex
from .gram import whole

if TYPE_CHECKING:
    from ..head import Head

MAX_CLIPS = 6000  # 144 MB of float32
_SIDES, _TILE_BYTES, _MOST_BYTES = (256, 64), 32 << 20, 512 << 20


def pays(head: Head, bank: FeatureBank, protocol: Protocol, episodes: int) -> bool:
    """Whether the matrix of all pairs is allowed, and costs clearly less than the episodes' own pairs."""
    shots, ways = bounds(protocol.k_shot), bounds(protocol.n_way)[1] or len(bank.class_names)
    poolable = shots == (1, 1) or (shots[0] >= 1 and head.pools_shots)
    if not (head.pairwise and poolable) or len(bank) > MAX_CLIPS or not whole(bank, protocol):
        return False
    return 1.25 * len(bank) ** 2 <= episodes * ways**2 * protocol.n_query * shots[0]


@torch.no_grad()
def pair_matrix(head: Head, bank: FeatureBank) -> Tensor:
    """One-shot logits [n, n] of every clip as a query (rows) against every clip as the support of a class."""
    parts = torch.arange(len(bank), device=bank.device).split(_side(head))
    both = head.pair_exchanges(bank)
    if both is None:
        score = head.pair_scores(bank)
        return torch.cat([torch.cat([score(rows, columns) for columns in parts], 1) for rows in parts])
    matrix = torch.empty(len(bank), len(bank), device=bank.device)
    for i, rows in enumerate(parts):
        for columns in parts[i:]:
            matrix[rows[:, None], columns], matrix[columns[:, None], rows] = both(rows, columns)
    return matrix


def _side(head: Head) -> int:
    """Clips on each side of a tile: what the head touches fits the cache, but enough clips to share their encoding;
    fewer where even those would take too much memory.
    """
    side = _SIDES[0]
    while side > 1 and head.episode_bytes(side, 1, side) > (_TILE_BYTES if side > _SIDES[1] else _MOST_BYTES):
        side //= 2
    return side


def as_one_episode(head: Head, bank: FeatureBank, rows: Tensor, columns: Tensor) -> Tensor:
    """Logits [rows, columns] by one episode whose classes are the columns' clips."""
    support = {m: as_classes(t.gather(columns)) for m, t in bank.tables.items()}
    query = {m: as_queries(t.gather(rows)) for m, t in bank.tables.items()}
    label = torch.zeros((1, len(rows)), dtype=torch.int64, device=bank.device)
    return head(Episodes(support, query, label, columns[None]))[0].float()


def pair_scorer(head: Head, matrix: Tensor) -> Callable[[EpisodeIndex], Tensor]:
    """Logits [B, Q, N] of drawn episodes, from the matrix."""

    def score(index: EpisodeIndex) -> Tensor:
        query, support = index.query.to(matrix.device), index.support.to(matrix.device)
        place = query[:, :, None] * len(matrix) + support.flatten(1)[:, None]
        pair = matrix.view(-1).take(place).unflatten(-1, support.shape[1:])
        return pair.squeeze(-1) if pair.shape[-1] == 1 else head.pool_shots(pair)

    return score


def as_classes(s: Stream) -> Stream:
    """Clips [n, T, D] as the single supports of n classes of one episode."""
    return Stream(s.x[None, :, None], s.present[None, :, None], s.length[None, :, None])


def as_queries(s: Stream) -> Stream:
    """Clips [n, T, D] as the queries of one episode."""
    return Stream(s.x[None], s.present[None], s.length[None])
