"""Nearest neighbour: Nearest Neighbor Pattern Classification (Cover and Hart, IEEE Transactions on Information Theory,
1967).

A query takes the class of its nearest support; nothing is learned. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...episodes.batch import Episodes
from ..head import Head
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.tensors import flat_support, single
from ..scoring.gram import FromGram, Products, unit_points
from ..scoring.shortcut import Shortcut
from ..settings import Settings


@dataclass(frozen=True)
class NearestSettings(Settings):
    """The nearest neighbour's settings."""

    distance: Literal["euclidean", "cosine"] = "euclidean"
    """The squared Euclidean distance, or one minus the cosine."""


class NearestNeighbour(Head[NearestSettings]):
    Settings = NearestSettings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: minus the distance to the nearest present support of each class."""
        support, query = single(episodes)
        s, present = flat_support(support)
        q = query.pooled()
        distance = squared_distances(q, s) if self.settings.distance == "euclidean" else 1 - cosine(q, s)
        distance = distance.masked_fill(~present[:, None, :], float("inf"))
        nearest = distance.unflatten(-1, (episodes.ways, -1)).amin(-1)
        class_present = support.present.any(2)
        return neutral(-nearest.masked_fill(~class_present[:, None, :], 0.0), query.present, class_present)

    def shortcuts(self) -> Iterable[Shortcut]:
        if self.settings.distance == "cosine":
            return (
                FromGram(logits=lambda products: products.query_support.amax(-1) - 1, points=unit_points),
            )
        return (FromGram(logits=_nearness_from_products),)


def _nearness_from_products(products: Products) -> Tensor:
    """max_k (2 <q, s_k> - <s_k, s_k>), which is max_k -|q - s_k|^2 without the query's own squared length."""
    return (2 * products.query_support - products.support_square[:, None]).amax(-1)
