"""ProtoNet: Prototypical Networks for Few-shot Learning (Snell, Swersky and Zemel, NeurIPS 2017).

A class is the mean of its supports' embeddings; a query goes to the nearest class. On cached features the embedding
is the encoder's own (no training) unless ``embed`` adds a learned linear map. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.tensors import class_means, single
from ..scoring.buffers import gather_rows
from ..scoring.gram import plain_table, query_support, to_sums, within_classes
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class ProtoNetSettings(Settings):
    """distance: "euclidean" (squared, equation 1 of the paper), or "cosine" times ``scale``.

    per_support: with the cosine, average a query's cosines to the supports of a class instead of taking one to their
    mean; epsilon: added to the cosine's denominator (scale 1, epsilon .01: the "TSN" baseline of OTAM, CVPR 2020).
    embed: width of a learned linear embedding; 0 for none (training-free).
    """

    distance: str = "euclidean"
    scale: float = 10.0
    per_support: bool = False
    epsilon: float = 0.0
    embed: int = 0


class ProtoNet(Head):
    settings_class = ProtoNetSettings
    light = True
    recipe = Recipe(decay_every=2000)

    def __init__(self, inputs: Inputs, settings: ProtoNetSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.distance not in ("euclidean", "cosine"):
            raise UsageError(f"distance={self.settings.distance!r} is not known; use euclidean or cosine.")
        _, _, dim = inputs.one()
        self.encoder = nn.Linear(dim, self.settings.embed) if self.settings.embed else None
        given = self.settings
        plain = given.distance == "euclidean" or not (given.per_support or given.epsilon)
        self.inner_products = self.encoder is None and plain

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        s, q = support.pooled(), query.pooled()
        if self.encoder is not None:
            s, q = self.encoder(s), self.encoder(q)
        if self.settings.distance == "cosine" and self.settings.per_support:
            near = cosine(q, s.flatten(1, 2), self.settings.epsilon).unflatten(-1, s.shape[1:3])
            mean, known = class_means(near.permute(0, 2, 3, 1), support.present)
            return neutral(self.settings.scale * mean.transpose(1, 2), query.present, known)
        prototype, known = class_means(s, support.present)
        return neutral(self._logits(q, prototype), query.present, known)

    def _logits(self, query: Tensor, prototype: Tensor) -> Tensor:
        if self.settings.distance == "cosine":
            return self.settings.scale * cosine(query, prototype, self.settings.epsilon)
        return -squared_distances(query, prototype)

    @torch.no_grad()
    def score(
        self,
        bank: FeatureBank,
        index: EpisodeIndex,
        protocol: Protocol,
        unlabelled: FeatureBank | None = None,
    ) -> Tensor:
        """As forward, straight from the table: prototypes by one bag sum, no copy of the supports."""
        direct = self.inner_products and self.settings.distance == "euclidean"
        table = plain_table(bank, protocol) if direct else None
        if table is None:
            return super().score(bank, index, protocol, unlabelled)
        x = table.x[:, 0]
        batch, ways, shots = index.support.shape
        bags = index.support.reshape(batch * ways, shots).to(x.device)
        prototype = F.embedding_bag(bags, x, mode="mean").view(batch, ways, -1)
        query = gather_rows(x, index.query)
        # |q|^2 is the same for every class of a query, so posteriors and predictions do not need it.
        return torch.baddbmm(
            prototype.square().sum(-1)[:, None, :].neg(), query, prototype.transpose(1, 2), alpha=2.0
        )

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """-|q - p|^2 + |q|^2 = 2 mean_k <q, s_k> - mean_kl <s_k, s_l>."""
        if self.settings.distance == "cosine":
            return self.settings.scale * to_sums(gram, index)
        norm = within_classes(gram, index).mean((2, 3))
        return 2 * query_support(gram, index).mean(-1) - norm[:, None, :]
