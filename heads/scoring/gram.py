"""The Gram path: when a split is small, one matrix of all inner products replaces every gather of features.

Heads whose logits depend on features through inner products alone (``inner_products``) read their few hundred numbers
an episode from it. Equal to the direct path up to rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import TensorTable
from ...episodes.protocol import Protocol, bounds
from ...episodes.sampler import EpisodeIndex

if TYPE_CHECKING:
    from ..head import Head

MAX_CLIPS = 6000  # 144 MB of float32


def whole(bank: FeatureBank, protocol: Protocol) -> bool:
    """Whether every drawn clip is there with all that the bank holds of it, and nothing else is."""
    chosen = protocol.support_modalities is not None or protocol.query_modalities is not None
    if protocol.missing or protocol.unlabelled or chosen or protocol.dirichlet is not None:
        return False
    return protocol.small_classes != "short" and all(t.all_present for t in bank.tables.values())


def repeats(bank: FeatureBank, protocol: Protocol, episodes: int) -> bool:
    """Whether episodes of whole clips draw more of them than the bank holds, so that work done once a clip pays."""
    ways, shots = bounds(protocol.n_way)[1] or len(bank.class_names), bounds(protocol.k_shot)[0]
    drawn = episodes * ways * (shots + protocol.n_query)
    return shots > 0 and drawn >= len(bank) and whole(bank, protocol)


def plain_table(bank: FeatureBank, protocol: Protocol) -> TensorTable | None:
    """The only table of a bank of pooled features that are all there and all used; None where there is more to it."""
    if len(bank.tables) != 1 or not whole(bank, protocol):
        return None
    (table,) = bank.tables.values()
    return table if isinstance(table, TensorTable) and table.steps == 1 else None


def gram_of(head: Head, bank: FeatureBank, protocol: Protocol, episodes: int) -> Tensor | None:
    """Inner products [n, n] of all clips in float32, where that costs less than the episodes' own products.

    Scoring E episodes directly takes E * Q * N products of D; the matrix takes n * n / 2 of them at a better rate.
    """
    n, ways = len(bank), bounds(protocol.n_way)[1] or len(bank.class_names)
    products = episodes * ways * ways * protocol.n_query
    if not head.inner_products or n > MAX_CLIPS or n * n > 2 * products:
        return None
    if not whole(bank, protocol) or bounds(protocol.k_shot)[0] < 1:
        return None
    x = head.points(bank)
    return None if x is None else x.float() @ x.float().T


def query_support(gram: Tensor, index: EpisodeIndex) -> Tensor:
    """Inner products of queries and supports, [B, Q, N, K]."""
    query, support = index.query.to(gram.device), index.support.to(gram.device)
    place = query[:, :, None] * len(gram) + support.flatten(1)[:, None, :]
    return gram.view(-1).take(place).unflatten(-1, support.shape[1:])


def within_classes(gram: Tensor, index: EpisodeIndex) -> Tensor:
    """Inner products of the supports of each class, [B, N, K, K]."""
    support = index.support.to(gram.device)
    return gram.view(-1).take(support[..., :, None] * len(gram) + support[..., None, :])


def to_means(gram: Tensor, index: EpisodeIndex) -> Tensor:
    """Squared distances [B, Q, N] of queries to the means of each class's supports."""
    own = gram.diagonal()[index.query.to(gram.device)][..., None]
    norm = within_classes(gram, index).mean((2, 3))[:, None]
    return (own + norm - 2 * query_support(gram, index).mean(-1)).clamp(min=0)


def to_sums(gram: Tensor, index: EpisodeIndex) -> Tensor:
    """Cosines [B, Q, N] of queries and the sums (or means) of each class's supports."""
    own = gram.diagonal().clamp(min=0).sqrt()[index.query.to(gram.device)][..., None]
    length = within_classes(gram, index).sum((2, 3)).clamp(min=0).sqrt()[:, None]
    return query_support(gram, index).sum(-1) / (own * length).clamp(min=1e-12)
