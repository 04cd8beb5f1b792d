"""Nearest neighbour (Cover and Hart, IEEE TIT 1967): a query takes the class of its nearest support. Inductive."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..episodes.batch import Episodes
from ..errors import UsageError
from .base import Head, Inputs, Settings
from .parts import cosine, flat_support, neutral, single, squared_distances


@dataclass(frozen=True)
class NearestSettings(Settings):
    """distance: "euclidean" (squared) or "cosine" (one minus the cosine)."""

    distance: str = "euclidean"


class NearestNeighbour(Head):
    settings_class = NearestSettings
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
