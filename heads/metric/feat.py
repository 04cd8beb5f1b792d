"""FEAT: Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions (Ye, Hu, Zhan and Sha, CVPR 2020).

The prototypes of a task attend to one another, and queries are compared with the adapted prototypes. A regulariser
lets all instances of a class, supports and queries, attend to one another and asks them to gather round its centre.
Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import zero_where_absent
from ..parts.context import TaskContext
from ..parts.distances import squared_distance_to
from ..parts.losses import cross_entropy, targets
from ..parts.task import work_dtype
from ..parts.tensors import class_means, single
from ..settings import NonNegative, Positive, Rate, Recipe, Settings


@dataclass(frozen=True)
class FEATSettings(Settings):
    """FEAT's settings."""

    distance: Literal["euclidean", "cosine"] = "euclidean"
    """The squared Euclidean distance, or the product with a prototype of length one."""
    temperature: Positive = 64.0
    """What the episode's logits are divided by."""
    contrast_temperature: Positive = 16.0
    """What the regulariser's logits are divided by."""
    balance: NonNegative = 0.1
    """The weight of the regulariser."""
    attention_dropout: Rate = 0.1
    """The dropout of the attention's weights."""
    dropout: Rate = 0.5
    """The dropout of the adaptation."""
    rescale: bool = True
    """Bring features to length sqrt(D), the scale of the layer-normalised prototypes that they are compared with."""
    start: bool = True
    """The adaptation begins at zero, so that the untrained head is a prototype rule; false: at random, as published."""


class Projected(NamedTuple):
    """Clips x [..., D] with what the attention reads of them: queries, keys and values, [..., D] each."""

    x: Tensor
    query: Tensor
    key: Tensor
    value: Tensor


class FEAT(EncodingHead[FEATSettings, Projected, Tensor]):
    Settings = FEATSettings
    recipe = Recipe(steps=600, optimiser="sgd", rate=2e-3, weight_decay=5e-4, decay_every=200, mix=0.5)

    def __init__(self, inputs: Inputs, settings: FEATSettings) -> None:
        super().__init__(inputs, settings)
        self.attention = SetAttention(inputs.one()[2], settings)

    def encode(self, clips: Stream) -> Projected:
        return self.attention.project(self.encode_query(clips))

    def encode_query(self, clips: Stream) -> Tensor:
        """Features [..., D] in the weights' dtype, of length sqrt(D)."""
        x = zero_where_absent(clips.pooled().to(work_dtype(clips.x.dtype, self)), clips.present)
        return x.shape[-1] ** 0.5 * F.normalize(x, dim=-1) if self.settings.rescale else x

    def compare(self, support: Projected, query: Tensor, context: TaskContext) -> Tensor:
        """A prototype's projections are the means of its supports'."""
        mean = Projected(*(class_means(part, context.support_present)[0] for part in support))
        prototype = self.attention(mean, context.class_present[:, None, :])
        return self._logits(query, prototype, self.settings.temperature)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy of the queries, plus ``balance`` times that of all instances to their class's centre."""
        main = cross_entropy(self(episodes), episodes.query_label)
        if episodes.multi or not self.settings.balance:
            return Losses(main, {"ce": main})
        extra = cross_entropy(*self.contrast(episodes))
        return Losses(main + self.settings.balance * extra, {"ce": main, "contrast": extra})

    def contrast(self, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Logits [B, M, N] of all M instances (supports, then queries) to the adapted class centres; labels [B, M]."""
        support, query = single(episodes)
        batch, ways, shots = support.present.shape
        x = torch.cat([self.encode_query(support).flatten(1, 2), self.encode_query(query)], 1)
        _, labelled = targets(episodes, x.dtype)
        own = torch.arange(ways, device=x.device).repeat_interleave(shots).expand(batch, -1)
        of_support = own.masked_fill(~support.present.flatten(1, 2), -1)
        of_query = episodes.query_label.masked_fill(~(labelled & query.present), -1)
        label = torch.cat([of_support, of_query], 1)
        # One attention over all instances in which each sees its own class only: the published per-class sets.
        same = (label[:, :, None] == label[:, None, :]) & (label >= 0)[:, None, :]
        adapted = self.attention(self.attention.project(x), same)
        member = (label[..., None] == torch.arange(ways, device=label.device)).to(x.dtype)
        centre = member.transpose(1, 2) @ adapted / member.sum(1).clamp(min=1)[..., None]
        return self._logits(x, centre, self.settings.contrast_temperature), label

    def _logits(self, x: Tensor, centre: Tensor, temperature: float) -> Tensor:
        if self.settings.distance == "euclidean":
            return -squared_distance_to(x, centre) / temperature
        return x @ F.normalize(centre, dim=-1).transpose(1, 2) / temperature


class SetAttention(nn.Module):
    """Single-head self-attention over a set, a linear layer, residual, layer norm."""

    def __init__(self, dim: int, settings: FEATSettings) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention_dropout = nn.Dropout(settings.attention_dropout)
        self.dropout = nn.Dropout(settings.dropout)
        if settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def project(self, x: Tensor) -> Projected:
        """What the attention reads of x [..., D]; values pass the last layer here, which attention commutes with."""
        heat = x.shape[-1] ** 0.5
        return Projected(x, self.query(x) / heat, self.key(x), F.linear(self.value(x), self.out.weight))

    def forward(self, item: Projected, sees: Tensor) -> Tensor:
        """The adapted items [B, M, D]; sees bool, broadcast to [B, M, M]: whether the row may attend to the column."""
        logits = (item.query @ item.key.transpose(1, 2)).masked_fill(~sees, -1e4)
        weight = self.attention_dropout(torch.softmax(logits, -1))
        return self.norm(item.x + self.dropout(weight @ item.value + self.out.bias))
