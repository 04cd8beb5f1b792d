"""SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning (Wang et al., arXiv 1911.04623, 2019).

Features are centred by the base classes' mean and scaled to length one; a query goes to the nearest class mean. Nothing
is learned. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..parts.distances import squared_distances
from ..parts.task import Task
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from .centred import CentredHead, CentredSettings


@dataclass(frozen=True)
class SimpleShotSettings(CentredSettings):
    """SimpleShot's settings."""

    transform: Literal["un", "l2n", "cl2n"] = "cl2n"
    """The features as they are, of length one, or of length one after the base classes' mean was subtracted."""


class SimpleShot(CentredHead[SimpleShotSettings]):
    """Logits are minus squared distances, which keep the order of the paper's Euclidean distances."""

    Settings = SimpleShotSettings

    def decide(self, task: Task) -> Tensor:
        return -self.distances(task).square()

    def distances(self, task: Task) -> Tensor:
        """Euclidean distances [B, Q, N] to the class means, which are not scaled to length one again."""
        return squared_distances(task.query, task.means()).sqrt()

    def shortcuts(self) -> Iterable[Shortcut]:
        def logits(products: Products) -> Tensor:
            return -products.squared_distance_to_mean()

        return (*super().shortcuts(), FromGram(logits=logits, points=self.points))
