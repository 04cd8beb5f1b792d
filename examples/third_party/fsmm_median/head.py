"""Class medians: a class is the median of its supports, number by number, and a query goes to the nearest class.

The median forgets a support that lies far from the others, which the mean does not. Nothing is learned. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fsmm.episodes.batch import Episodes
from fsmm.heads.head import Head
from fsmm.heads.parts.absence import neutral
from fsmm.heads.parts.distances import squared_distances
from fsmm.heads.parts.task import pooled_task
from fsmm.heads.settings import Positive, Settings


@dataclass(frozen=True)
class MedianSettings(Settings):
    """The settings of class medians."""

    scale: Positive = 1.0
    """The factor of the distances: it sharpens posteriors and changes no decision."""


class Median(Head[MedianSettings]):
    """A class is the median of its supports; a query goes to the nearest class."""

    Settings = MedianSettings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: minus the squared distance to each class's median."""
        task = pooled_task(episodes)  # support [B, N, K, D], query [B, Q, D]
        support = task.support.masked_fill(~task.support_present[..., None], torch.nan)
        median = support.nanmedian(2).values.nan_to_num()  # [B, N, D]
        logits = -self.settings.scale * squared_distances(task.query, median)
        return neutral(logits, task.query_present, task.class_present)
