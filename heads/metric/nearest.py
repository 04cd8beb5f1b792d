"""Nearest neighbour (Cover and Hart, IEEE TIT 1967): a query takes the class of its nearest support. Inductive."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.tensors import flat_support, single
from ..scoring.gram import query_support
from ..settings import Settings


@dataclass(frozen=True)
class NearestSettings(Settings):
    """distance: "euclidean" (squared) or "cosine" (one minus the cosine)."""

    distance: str = "euclidean"


class NearestNeighbour(Head):
    settings_class = NearestSettings
    light = True
    inner_products = True

    def __init__(self, inputs: Inputs, settings: NearestSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.distance not in ("euclidean", "cosine"):
            raise UsageError(f"distance={self.settings.distance!r} is not known; use euclidean or cosine.")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: minus the distance to the nearest present support of each class."""
        support, query = single(episodes)
        s, present = flat_support(support)
        q = query.pooled()
        distance = squared_distances(q, s) if self.settings.distance == "euclidean" else 1 - cosine(q, s)
        distance = distance.masked_fill(~present[:, None, :], float("inf"))
        nearest = distance.unflatten(-1, (episodes.ways, -1)).amin(-1)
        known = support.present.any(2)
        return neutral(-nearest.masked_fill(~known[:, None, :], 0.0), query.present, known)

    def points(self, bank: FeatureBank) -> Tensor | None:
        x = super().points(bank)
        return F.normalize(x.float(), dim=-1) if x is not None and self.settings.distance == "cosine" else x

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """max_k of -|q - s_k|^2 + |q|^2 = 2 <q, s_k> - <s_k, s_k>."""
        if self.settings.distance == "cosine":
            return query_support(gram, index).amax(-1) - 1
        norm = gram.diagonal()[index.support.to(gram.device)]
        return (2 * query_support(gram, index) - norm[:, None]).amax(-1)
