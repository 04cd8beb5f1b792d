"""Soft k-means ProtoNet: Meta-Learning for Semi-Supervised Few-Shot Classification (Ren et al., ICLR 2018).

Prototypes start as class means; unlabelled clips are assigned to them softly by distance and pull them along
(equation 3 of the paper). Clips far from a class beside the other unlabelled clips are masked out of it (equations 6 to
8), because most unlabelled clips may belong to no class of the episode. Without unlabelled clips it is ProtoNet.
Inductive in its queries: they never move a prototype.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...episodes.batch import Episodes, Stream
from ..head import Head
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.tensors import class_means, single
from ..scoring.gram import FromGram
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, Positive, Settings


@dataclass(frozen=True)
class SemiProtoNetSettings(Settings):
    """The soft k-means ProtoNet's settings."""

    rounds: CountOrNone = 1
    """How often the prototypes are refined."""
    temperature: Positive = 0.1
    """What squared distances are divided by in the soft assignment; features of length one lie within a squared
    distance of four, so that the paper's 1 would assign almost evenly."""
    mask: bool = True
    """Leave out distractors by sigmoid(slope * (threshold - d)), where d is a clip's distance to the class over the
    mean of all unlabelled clips'."""
    threshold: float = 0.5
    """The relative distance at which half of a clip is masked; the paper predicts it by a trained network."""
    slope: float = 30.0
    """How sharply the mask falls at the threshold; the paper predicts it by a trained network."""


class SemiProtoNet(Head[SemiProtoNetSettings]):
    Settings = SemiProtoNetSettings

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        prototype, class_present = class_means(support.pooled(), support.present)
        if episodes.unlabelled:
            (extra,) = episodes.unlabelled.values()
            prototype = self._refined(prototype, support.present, extra)
        return neutral(-squared_distances(query.pooled(), prototype), query.present, class_present)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Without unlabelled clips logits follow from inner products."""
        return (FromGram(logits=lambda products: -products.squared_distance_to_mean()),)

    def _refined(self, prototype: Tensor, support_present: Tensor, unlabelled: Stream) -> Tensor:
        """Prototypes [B, N, D] pulled along by unlabelled clips [B, U, T, D]; classes without support stay."""
        class_present = support_present.any(2)
        shots = support_present.sum(2).to(prototype.dtype)
        extra, present = unlabelled.pooled(), unlabelled.present
        supported = prototype * shots[..., None]
        refined = prototype
        for _ in range(self.settings.rounds):
            distance = squared_distances(extra, refined)
            heat = -distance / self.settings.temperature
            heat = heat.masked_fill(~class_present[:, None], float("-inf"))
            weight = torch.softmax(heat, -1).nan_to_num() * present[..., None].to(distance.dtype)
            if self.settings.mask:
                weight = weight * self._mask(distance, present)
            total = supported + weight.transpose(1, 2) @ extra
            count = shots + weight.sum(1)
            mean = total / count.clamp(min=1e-9)[..., None]
            refined = torch.where(class_present[..., None], mean, prototype)
        return refined

    def _mask(self, distance: Tensor, present: Tensor) -> Tensor:
        """How much each unlabelled clip may belong to each class, in 0..1, of distances [B, U, N]."""
        weight = present[..., None].to(distance.dtype)
        mean = (distance * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        relative = distance / mean.clamp(min=1e-9)
        return torch.sigmoid(self.settings.slope * (self.settings.threshold - relative))
