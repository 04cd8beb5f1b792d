"""SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning (Wang et al., arXiv 1911.04623, 2019).

Subtract the base classes' mean feature, scale to length one, average the supports of a class, take the nearest mean.
The transform does the work: nothing is learned in the episode. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..episodes.batch import Episodes
from .base import Settings
from .metric_parts import CentredHead, Task
from .parts import neutral, squared_distances


@dataclass(frozen=True)
class SimpleShotSettings(Settings):
    """transform: "un" (as they are), "l2n" (unit length) or "cl2n" (centred by the base mean, then unit length)."""

    transform: str = "cl2n"


class SimpleShot(CentredHead):
    settings_class = SimpleShotSettings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: minus the squared distance (the order of the paper's Euclidean distance)."""
        task = self.task(episodes)
        return neutral(-self.distances(task).square(), task.asked, task.known)

    def distances(self, task: Task) -> Tensor:
        """Euclidean distances [B, Q, N] to the class means, which are not scaled to length one again."""
        return squared_distances(task.query, task.means()).sqrt()
