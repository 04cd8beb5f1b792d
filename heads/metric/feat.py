"""FEAT: Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions (Ye et al., CVPR 2020).

The prototypes of an episode attend to one another, so that each is placed with its rivals in view; queries go to the
nearest adapted prototype. In training, all instances of a class pass the same attention and must agree with their
class's centre. Inductive: queries never enter the attention of the prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.distances import apart
from ..parts.losses import cross_entropy, targets
from ..parts.task import Task, pooled_task, work_dtype
from ..scoring.once_per_clip import KEPT_NUMBERS
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class FEATSettings(Settings):
    """distance: "euclidean" (squared), or "cosine" (prototype of length one, query as it is).

    temperature, contrast_temperature: divide the logits of the episode and of the regulariser; balance: its weight.
    attention_dropout, dropout: of the attention weights and of the adaptation.
    rescale: bring features to length sqrt(D), the scale of the layer-normalised prototypes they are compared with.
    start: the adaptation begins at zero, so that the untrained head is a prototype rule; False: at random (published).
    """

    distance: str = "euclidean"
    temperature: float = 64.0
    contrast_temperature: float = 16.0
    balance: float = 0.1
    attention_dropout: float = 0.1
    dropout: float = 0.5
    rescale: bool = True
    start: bool = True


class FEAT(Head):
    settings_class = FEATSettings
    light = True
    recipe = Recipe(steps=600, optimiser="sgd", rate=2e-3, weight_decay=5e-4, decay_every=200, mix=0.5)

    def __init__(self, inputs: Inputs, settings: FEATSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.distance not in ("euclidean", "cosine"):
            raise UsageError(f"distance={self.settings.distance!r} is not known; use euclidean or cosine.")
        self.attention = SetAttention(inputs.one()[2], self.settings)

    def forward(self, episodes: Episodes) -> Tensor:
        task = self._task(episodes)
        return neutral(self._episode_logits(task), task.asked, task.known)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy of the queries, plus ``balance`` times that of all instances to their class's centre."""
        task = self._task(episodes)
        main = cross_entropy(
            neutral(self._episode_logits(task), task.asked, task.known), episodes.query_label
        )
        if episodes.multi or not self.settings.balance:
            return Losses(main, {"ce": main})
        logits, label = self.contrast(task, episodes)
        extra = cross_entropy(logits, label)
        return Losses(main + self.settings.balance * extra, {"ce": main, "contrast": extra})

    def contrast(self, task: Task, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Logits [B, M, N] of all M instances (supports, then queries) to the adapted class centres; labels [B, M]."""
        batch, ways, shots = task.shown.shape
        hot, valid = targets(episodes, task.query.dtype)
        own = torch.arange(ways, device=hot.device).repeat_interleave(shots).expand(batch, -1)
        x = torch.cat([task.support.flatten(1, 2), task.query], 1)
        label = torch.cat(
            [
                own.masked_fill(~task.shown.flatten(1, 2), -1),
                episodes.query_label.masked_fill(~(valid & task.asked), -1),
            ],
            1,
        )
        # One attention over all instances in which each sees its own class only: the published per-class sets.
        same = (label[:, :, None] == label[:, None, :]) & (label >= 0)[:, None, :]
        adapted = self.attention(x, same)
        member = (label[..., None] == torch.arange(ways, device=label.device)).to(x.dtype)
        centre = member.transpose(1, 2) @ adapted / member.sum(1).clamp(min=1)[..., None]
        return self._logits(x, centre, self.settings.contrast_temperature), label

    def _episode_logits(self, task: Task) -> Tensor:
        prototype = self.attention(task.means(), task.known[:, None, :])
        return self._logits(task.query, prototype, self.settings.temperature)

    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """A prototype's projections are the means of its supports': every clip is projected once."""
        x = self.points(bank)
        if x is None or x.numel() > KEPT_NUMBERS:
            return None
        with torch.no_grad():
            clip = self._scaled(x.to(work_dtype(x.dtype, self)))
            parts = (clip, *self.attention.projected(clip))

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support = index.support.to(clip.device)
            mean, query, key, value = (part[support].mean(2) for part in parts)
            prototype = self.attention.mixed(mean, query, key, value)
            return self._logits(clip[index.query.to(clip.device)], prototype, self.settings.temperature)

        return Scorer(score)

    def _logits(self, x: Tensor, centre: Tensor, temperature: float) -> Tensor:
        if self.settings.distance == "euclidean":
            return -apart(x, centre) / temperature
        return x @ F.normalize(centre, dim=-1).transpose(1, 2) / temperature

    def _task(self, episodes: Episodes) -> Task:
        task = pooled_task(episodes, self)
        return task._replace(support=self._scaled(task.support), query=self._scaled(task.query))

    def _scaled(self, x: Tensor) -> Tensor:
        return x.shape[-1] ** 0.5 * F.normalize(x, dim=-1) if self.settings.rescale else x


class SetAttention(nn.Module):
    """Single-head self-attention over a set, a linear layer, residual, layer norm."""

    def __init__(self, dim: int, given: FEATSettings) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention_dropout, self.dropout = nn.Dropout(given.attention_dropout), nn.Dropout(given.dropout)
        self.heat = dim**0.5
        if given.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, sees: Tensor) -> Tensor:
        """x [B, M, D]; sees bool, broadcast to [B, M, M]: whether the row may attend to the column."""
        logits = self.query(x) @ self.key(x).transpose(1, 2) / self.heat
        weight = torch.softmax(logits.masked_fill(~sees, -1e4), -1)
        mixed = self.attention_dropout(weight) @ self.value(x)
        return self.norm(x + self.dropout(self.out(mixed)))

    def projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, and values with the last layer's weights applied, of vectors [..., D]."""
        return self.query(x) / self.heat, self.key(x), F.linear(self.value(x), self.out.weight)

    def mixed(self, x: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As forward in evaluation, of a set [B, M, D] all of which sees all, and its projections."""
        weight = torch.softmax(query @ key.transpose(1, 2), -1)
        return self.norm(x + weight @ value + self.out.bias)
