"""SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning (Wang et al., arXiv 1911.04623, 2019).

Subtract the base classes' mean feature, scale to length one, average the supports of a class, take the nearest mean.
The transform does the work: nothing is learned in the episode. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...episodes.sampler import EpisodeIndex
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.task import Task
from ..scoring.gram import to_means
from ..settings import Settings
from .centred import CentredHead


@dataclass(frozen=True)
class SimpleShotSettings(Settings):
    """transform: "un" (as they are), "l2n" (unit length) or "cl2n" (centred by the base mean, then unit length)."""

    transform: str = "cl2n"


class SimpleShot(CentredHead):
    settings_class = SimpleShotSettings
    inner_products = True

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        return -to_means(gram, index)

    def of_task(self, task: Task) -> Tensor:
        """Logits: minus the squared distance (the order of the paper's Euclidean distance)."""
        return neutral(-self.distances(task).square(), task.asked, task.known)

    def distances(self, task: Task) -> Tensor:
        """Euclidean distances [B, Q, N] to the class means, which are not scaled to length one again."""
        return squared_distances(task.query, task.means()).sqrt()
