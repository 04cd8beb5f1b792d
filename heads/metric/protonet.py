"""ProtoNet: Prototypical Networks for Few-shot Learning (Snell, Swersky and Zemel, NeurIPS 2017).

A class is the mean of its supports' embeddings; a query goes to the nearest class. On cached features the embedding
is the encoder's own (no training) unless ``embed`` adds a learned linear map. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.tensors import class_means, single
from ..scoring.gram import FromGram, Products
from ..scoring.means import FromMeans
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, NonNegative, Positive, Recipe, Settings


@dataclass(frozen=True)
class ProtoNetSettings(Settings):
    """ProtoNet's settings; scale 1 and epsilon 0.01 of the cosine give the "TSN" baseline of OTAM (CVPR 2020)."""

    distance: Literal["euclidean", "cosine"] = "euclidean"
    """The squared Euclidean distance (equation 1 of the paper), or the cosine."""
    scale: Positive = 10.0
    """The factor of the cosine."""
    per_support: bool = False
    """Average a query's cosines to the supports of a class instead of taking one to their mean."""
    epsilon: NonNegative = 0.0
    """What is added to the cosine's denominator."""
    embed: CountOrNone = 0
    """The width of a learned linear embedding; 0 for none, which needs no training."""

    @property
    def adds_weights(self) -> bool:
        return self.embed > 0


class ProtoNet(Head[ProtoNetSettings]):
    Settings = ProtoNetSettings
    recipe = Recipe(decay_every=2000)

    def __init__(self, inputs: Inputs, settings: ProtoNetSettings) -> None:
        super().__init__(inputs, settings)
        self.encoder = nn.Linear(inputs.one()[2], settings.embed) if settings.embed else nn.Identity()

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        s, q = self.encoder(support.pooled()), self.encoder(query.pooled())
        if self.settings.distance == "cosine" and self.settings.per_support:
            each = cosine(q, s.flatten(1, 2), self.settings.epsilon).unflatten(-1, s.shape[1:3])
            mean, present = class_means(each.permute(0, 2, 3, 1), support.present)
            return neutral(self.settings.scale * mean.transpose(1, 2), query.present, present)
        prototype, present = class_means(s, support.present)
        return neutral(self.logits(q, prototype), query.present, present)

    def logits(self, query: Tensor, prototype: Tensor) -> Tensor:
        """[B, Q, N] of queries [B, Q, D] and prototypes [B, N, D]."""
        if self.settings.distance == "cosine":
            return self.settings.scale * cosine(query, prototype, self.settings.epsilon)
        return -squared_distances(query, prototype)

    def shortcuts(self) -> Iterator[Shortcut]:
        if self.settings.embed:
            return
        if self.settings.distance == "euclidean":
            yield FromMeans(_nearness)
            yield FromGram(logits=_nearness_from_products)
        elif not (self.settings.per_support or self.settings.epsilon):
            yield FromGram(logits=lambda products: self.settings.scale * products.cosine_to_mean())


def _nearness(query: Tensor, prototype: Tensor) -> Tensor:
    """2 <q, p> - |p|^2, which is -|q - p|^2 without the query's own length: that is the same for every class."""
    square = prototype.square().sum(-1)[:, None, :]
    return torch.baddbmm(square.neg(), query, prototype.transpose(1, 2), alpha=2.0)


def _nearness_from_products(products: Products) -> Tensor:
    """2 mean_k <q, s_k> - mean_kl <s_k, s_l>, which is -|q - p|^2 without the query's own length, of inner products."""
    return 2 * products.query_support.mean(-1) - products.within.mean((2, 3))[:, None, :]
