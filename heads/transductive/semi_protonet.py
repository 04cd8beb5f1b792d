"""Soft k-means ProtoNet: Meta-Learning for Semi-Supervised Few-Shot Classification (Ren et al., ICLR 2018).

Prototypes start as class means; unlabelled clips are assigned to them softly by distance and pull them along
(equation 3 of the paper). Clips far from a class beside the other unlabelled clips are masked out of it (equations 6 to
8), because most unlabelled clips may belong to no class of the episode. Without unlabelled clips it is ProtoNet.
Inductive in its queries: they never move a prototype.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ..head import Head
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.tensors import class_means, single
from ..scoring.gram import to_means
from ..settings import Settings


@dataclass(frozen=True)
class SemiProtoNetSettings(Settings):
    """rounds: refinements. temperature: divides squared distances in the soft assignment; features of length one
    lie within a squared distance of four, so the paper's 1 would assign almost evenly.
    mask: leave out distractors by sigmoid(slope * (threshold - d)), where d is a clip's distance to the class over the
    mean of all unlabelled clips' (the paper predicts threshold and slope by a trained network; here: constants)."""

    rounds: int = 1
    temperature: float = 0.1
    mask: bool = True
    threshold: float = 0.5
    slope: float = 30.0


class SemiProtoNet(Head):
    settings_class = SemiProtoNetSettings
    light = True
    inner_products = True

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        prototype, known = class_means(support.pooled(), support.present)
        if episodes.unlabelled:
            (extra,) = episodes.unlabelled.values()
            shots = support.present.sum(2).to(prototype.dtype)
            prototype = self._refine(prototype, known, shots, extra.pooled(), extra.present)
        return neutral(-squared_distances(query.pooled(), prototype), query.present, known)

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """Without unlabelled clips."""
        return -to_means(gram, index)

    def _refine(
        self, prototype: Tensor, known: Tensor, shots: Tensor, extra: Tensor, present: Tensor
    ) -> Tensor:
        """prototype [B, N, D], known [B, N], shots [B, N], extra [B, U, D], present [B, U] -> refined [B, N, D]."""
        supported = prototype * shots[..., None]
        refined = prototype
        for _ in range(self.settings.rounds):
            distance = squared_distances(extra, refined)
            heat = (-distance / self.settings.temperature).masked_fill(~known[:, None], float("-inf"))
            weight = torch.softmax(heat, -1).nan_to_num() * present[..., None].to(distance.dtype)
            if self.settings.mask:
                weight = weight * self._mask(distance, present)
            total = supported + weight.transpose(1, 2) @ extra
            count = shots + weight.sum(1)
            refined = torch.where(known[..., None], total / count.clamp(min=1e-9)[..., None], prototype)
        return refined

    def _mask(self, distance: Tensor, present: Tensor) -> Tensor:
        """How much each unlabelled clip may belong to each class, in 0..1, of distances [B, U, N]."""
        there = present[..., None].to(distance.dtype)
        mean = (distance * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        return torch.sigmoid(
            self.settings.slope * (self.settings.threshold - distance / mean.clamp(min=1e-9))
        )
