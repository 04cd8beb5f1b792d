"""Soft k-means ProtoNet: Meta-Learning for Semi-Supervised Few-Shot Classification (Ren et al., ICLR 2018).

Prototypes start as class means; unlabelled clips are assigned to them softly by distance and pull them along
(equation 3 of the paper). Without unlabelled clips it is ProtoNet. Inductive in its queries: they never move a
prototype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..episodes.batch import Episodes
from .base import Head, Settings
from .parts import class_means, neutral, single, squared_distances


@dataclass(frozen=True)
class SemiProtoNetSettings(Settings):
    """rounds: refinements. temperature: divides squared distances in the soft assignment; features of length one
    lie within a squared distance of four, so the paper's 1 would assign almost evenly."""

    rounds: int = 1
    temperature: float = 0.1


class SemiProtoNet(Head):
    settings_class = SemiProtoNetSettings

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        prototype, known = class_means(support.pooled(), support.present)
        if episodes.unlabelled:
            (extra,) = episodes.unlabelled.values()
            shots = support.present.sum(2).to(prototype.dtype)
            prototype = self._refine(prototype, known, shots, extra.pooled(), extra.present)
        return neutral(-squared_distances(query.pooled(), prototype), query.present, known)

    def _refine(
        self, prototype: Tensor, known: Tensor, shots: Tensor, extra: Tensor, present: Tensor
    ) -> Tensor:
        """prototype [B, N, D], known [B, N], shots [B, N], extra [B, U, D], present [B, U] -> refined [B, N, D]."""
        supported = prototype * shots[..., None]
        refined = prototype
        for _ in range(self.settings.rounds):
            distance = squared_distances(extra, refined).masked_fill(~known[:, None], float("inf"))
            weight = torch.softmax(-distance / self.settings.temperature, -1).nan_to_num()
            weight = weight * present[..., None].to(weight.dtype)
            total = supported + weight.transpose(1, 2) @ extra
            count = shots + weight.sum(1)
            refined = torch.where(known[..., None], total / count.clamp(min=1e-9)[..., None], prototype)
        return refined
