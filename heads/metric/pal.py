"""PAL: Few-shot Action Recognition with Prototype-centered Attentive Learning (Zhu et al., BMVC 2021).

Supports attend to one another, each query attends to the supports, and a query is compared with class means by
cosine. A second loss looks from the prototypes' side: each must draw its own queries and repel the rest. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.losses import cross_entropy, targets
from ..parts.task import Task, pooled_task
from ..parts.tensors import class_means
from ..scoring.once_per_clip import KEPT_NUMBERS
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class PALSettings(Settings):
    """scale: multiplies the cosine (1 in the public re-implementation; a cosine alone is too flat for its losses on
    unit features). epsilon: in the cosine's denominator. contrast: weight of the prototype-centred loss.

    rescale: multiply unit features by sqrt(D) before the attention, whose weights are otherwise all alike.
    start: the attention's output begins at zero: the untrained head is the cosine prototype rule. False: at random.
    """

    scale: float = 10.0
    epsilon: float = 0.01
    contrast: float = 1.0
    rescale: bool = True
    start: bool = True


class PAL(Head):
    settings_class = PALSettings
    light = True
    recipe = Recipe(steps=600, optimiser="sgd", rate=1e-2, momentum=0.9, mix=0.5)

    def __init__(self, inputs: Inputs, settings: PALSettings | None = None) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        self.stretch = dim**0.5 if self.settings.rescale else 1.0
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        if self.settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, episodes: Episodes) -> Tensor:
        task = pooled_task(episodes, self)
        return neutral(self.logits(task), task.asked, task.known)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy plus the prototype-centred contrastive term.

        - mean over classes of log( sum of sigmoid(l) over its queries / (sum over all queries + 0.1) ).
        """
        logits = self(episodes)
        main = cross_entropy(logits, episodes.query_label)
        hot, valid = targets(episodes, logits.dtype)
        drawn = logits.sigmoid() * valid[..., None].to(logits.dtype)
        own, everyone = (drawn * hot).sum(1), drawn.sum(1)
        asked = hot.sum(1) > 0
        each = torch.where(asked, -(own / (everyone + 0.1)).clamp(min=1e-12).log(), torch.zeros_like(own))
        extra = each.sum() / asked.sum().clamp(min=1)
        return Losses(main + self.settings.contrast * extra, {"ce": main, "contrast": extra})

    def logits(self, task: Task) -> Tensor:
        """[B, Q, N]."""
        shown = task.shown.flatten(1, 2)
        support = task.support.flatten(1, 2) * self.stretch
        query = task.query * self.stretch
        s = support + self.attend(support, support, shown)
        q = query + self.attend(query, s, shown)
        prototype, _ = class_means(s.view_as(task.support), task.shown)
        return self.settings.scale * cosine(q, prototype, self.settings.epsilon)

    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Every clip is projected once; an adapted query is never written out, only its products."""
        x = self.points(bank)
        if x is None or x.numel() > KEPT_NUMBERS:
            return None
        with torch.no_grad():
            projected = Projected(self, x.to(self.out.weight.dtype) * self.stretch)

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = (rows.to(bank.device) for rows in (index.support, index.query))
            s, q = projected.adapted(support.flatten(1)), projected.clips.x[query]
            values = s.value + self.out.bias  # weights add up to one
            prototype = s.x.unflatten(1, support.shape[1:]).mean(2)
            products = q @ torch.cat([s.key, values, prototype], 1).transpose(1, 2)
            seen, drawn, near = products.split([s.key.shape[1], s.key.shape[1], prototype.shape[1]], -1)
            weight = torch.softmax((seen + s.shift[:, None]) / q.shape[-1] ** 0.5, -1)
            near = near + weight @ (values @ prototype.transpose(1, 2))
            among = weight @ (values @ values.transpose(1, 2))
            square = q.norm(dim=-1).square() + (weight * (2 * drawn + among)).sum(-1)
            norms = square.clamp(min=0).sqrt()[..., None] * prototype.norm(dim=-1)[:, None]
            epsilon = self.settings.epsilon
            return self.settings.scale * near / (norms + epsilon if epsilon else norms.clamp(min=1e-12))

        return Scorer(score)

    def attend(self, x: Tensor, memory: Tensor, there: Tensor) -> Tensor:
        """Single-head attention of x [B, I, D] to memory [B, J, D] where there [B, J].

        <Wq x + b, k> = <x, Wq^T k> + <b, k>, and weights and Wo commute: the many x are never projected, the few rows
        of the memory are projected twice instead.
        """
        key = self.key(memory)
        logits = torch.baddbmm((key @ self.query.bias)[:, None], x, (key @ self.query.weight).transpose(1, 2))
        weight = torch.softmax((logits / x.shape[-1] ** 0.5).masked_fill(~there[:, None, :], -1e4), -1)
        return weight @ (self.value(memory) @ self.out.weight.T) + self.out.bias


class Seen(NamedTuple):
    """Clips x [..., D] as the attention sees them.

    key [..., D]: Wq^T of their keys; shift [...]: bq's product with the keys; value [..., D]: Wo of their values.
    """

    x: Tensor
    key: Tensor
    shift: Tensor
    value: Tensor


class Projected:
    """All clips as they are seen; what their values, and the output's bias, change where a clip takes them up."""

    def __init__(self, head: PAL, x: Tensor) -> None:
        query, key, value, out = head.query, head.key, head.value, head.out
        keys = key(x)
        self.clips = Seen(x, keys @ query.weight, keys @ query.bias, value(x) @ out.weight.T)
        # keys, shifts and values are affine in a clip
        linear = key.weight.T @ query.weight, key.weight.T @ query.bias, value.weight.T @ out.weight.T
        added = self.clips.value
        self.change = Seen(added, *(added @ matrix for matrix in linear))
        self.constant = Seen(out.bias, *(out.bias @ matrix for matrix in linear))

    def adapted(self, rows: Tensor) -> Seen:
        """Clips at rows [B, S] after they attended to one another."""
        clip, change = (Seen(*(part[rows] for part in seen)) for seen in (self.clips, self.change))
        logits = (clip.x @ clip.key.transpose(1, 2) + clip.shift[:, None]) / clip.x.shape[-1] ** 0.5
        weight = torch.softmax(logits, -1)
        moved = (
            own + torch.einsum("bst,bt...->bs...", weight, more) + fixed
            for own, more, fixed in zip(clip, change, self.constant)
        )
        return Seen(*moved)
