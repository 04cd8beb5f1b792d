"""MoLo: Motion-augmented Long-short Contrastive Learning for Few-shot Action Recognition (Wang et al., CVPR 2023).

Frames are read twice: as they look, and as they change (differences of locally smoothed frames). In each branch a class
token gathers the whole clip, and a contrastive loss ties it to the single frames of like clips (long to short). Clips are
compared frame set to frame set in both branches. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..errors import UsageError
from .alignment import hausdorff, sinusoid
from .base import Head, Inputs, Losses, Recipe, Settings, cross_entropy
from .metric_parts import work_dtype
from .parts import cosine, neutral, single
from .token_block import BaseClasses, TokenBlock, true_classes

EPSILON = 0.01  # added to the product of norms in every cosine, as released


@dataclass(frozen=True)
class MoLoSettings(Settings):
    """side: height and width of the features, when they are maps flattened as [C, side, side]; 1 for pooled features.

    rescale: multiply unit features by sqrt(D), the scale position codes were chosen for. position_a, position_b:
        x sqrt(D / A) + B code. position_steps: the frequencies of ``sinusoid`` (False as released).
    rectify: ReLU after the blocks, as published; cached features are often signed, so it is off here.
    motion: weight of the motion branch in the distance. reduce: channels of the motion maps are C / reduce.
    single_direct: only query frames look for their nearest. average: Hausdorff means (the paper of Bi-MHM) or sums.
    class_weight, contrast_weight: of the auxiliary losses. classes: rows of the base-class classifier.
    start: blocks begin as the identity and motion as plain differences; False: at random.
    """

    side: int = 1
    rescale: bool = True
    position_a: float = 2048.0
    position_b: float = 0.02
    position_steps: bool = False
    heads: int = 8
    hidden: int = 2048
    dropout: float = 0.2
    rectify: bool = False
    motion: float = 0.3
    reduce: int = 8
    single_direct: bool = False
    average: bool = False
    class_weight: float = 0.1
    contrast_weight: float = 0.05
    classes: int = 1024
    start: bool = True


class Tokens(NamedTuple):
    """One branch's view of clips: whole [..., D] (class token), frames [..., T, D], valid bool [..., T]."""

    whole: Tensor
    frames: Tensor
    valid: Tensor

    def mean(self) -> Tensor:
        """Mean over the class token and the valid frames [..., D]."""
        weight = self.valid.to(self.frames.dtype)[..., None]
        return (self.whole + (self.frames * weight).sum(-2)) / (1 + weight.sum(-2))


class Views(NamedTuple):
    """Both branches of the supports [B, N, K, ...] and queries [B, Q, ...]; classes [B, N, ...] are support means."""

    support: list[Tokens]
    query: list[Tokens]
    classes: list[Tokens]


class MoLo(Head):
    """Left out: the decoder that regresses pixel differences in training, since cached features have no pixels."""

    settings_class = MoLoSettings
    recipe = Recipe(steps=300, tasks=4, query=5, rate=1e-4, weight_decay=5e-4, evaluate_every=25, mix=0.5)
    sequences = True

    def __init__(self, inputs: Inputs, settings: MoLoSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        _, self.steps, flat = inputs.one()
        if flat % own.side**2:
            raise UsageError(f"side={own.side} does not fit features of width {flat}; use 1 for pooled features.")
        dim = flat // own.side**2
        self.gain = math.sqrt(flat) if own.rescale else 1.0
        self.appearance, self.movement = (
            Branch(dim, own.heads, own.hidden, own.dropout, own.start) for _ in range(2)
        )
        self.motion = Motion(dim, max(dim // own.reduce, 1), 3 if own.side > 1 else 1, own.start)
        self.scale = nn.Parameter(torch.ones(2))  # of the two branches' long-short logits
        self.classifier = nn.Linear(dim, own.classes)
        self.base = BaseClasses(own.classes)

    def fit_base(self, base: FeatureBank) -> None:
        self.base.remember(base)

    def forward(self, episodes: Episodes) -> Tensor:
        return self.logits(self.views(episodes), episodes)

    def loss(self, episodes: Episodes) -> Losses:
        """CE + class_weight CE over base classes + contrast_weight times the four long-short CEs."""
        own, seen, label = self.settings, self.views(episodes), episodes.query_label
        parts = {"ce": cross_entropy(self.logits(seen, episodes), label)}
        total = parts["ce"]
        if not episodes.multi:
            support, query = self.class_logits(seen)
            every = torch.cat([support.flatten(1, 2), query], 1)
            parts["class"] = self.base.cross_entropy(every, *_all_clips(episodes))
            total = total + own.class_weight * parts["class"]
        contrasts = [
            cross_entropy(neutral(logits, *_known(episodes)), label) for pair in self.contrasts(seen) for logits in pair
        ]
        parts["contrast"] = torch.stack(contrasts).sum()
        return Losses(total + own.contrast_weight * parts["contrast"], parts)

    def views(self, episodes: Episodes) -> Views:
        """Both branches of every clip."""
        support, query = single(episodes)
        s, q = self.tokens(support), self.tokens(query)
        return Views(s, q, [class_tokens(tokens, support.present) for tokens in s])

    def tokens(self, stream: Stream) -> list[Tokens]:
        """[appearance, motion] of clips [..., T, C * side^2]."""
        own = self.settings
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.gain
        maps = x.unflatten(-1, (-1, own.side, own.side))
        valid = stream.mask()
        moved, still = self.motion(maps.flatten(0, -5)), maps.mean((-1, -2))
        both_valid = valid[..., 1:]
        return [
            self.appearance(self._placed(still), valid, self._place),
            self.movement(moved.view(*both_valid.shape, -1), both_valid, self._place),
        ]

    def logits(self, seen: Views, episodes: Episodes) -> Tensor:
        """Minus the distances d_appearance + motion d_motion, [B, Q, N]."""
        appearance, motion = (self._distance(q, c) for q, c in zip(seen.query, seen.classes))
        return neutral(-(appearance + self.settings.motion * motion), *_known(episodes))

    def contrasts(self, seen: Views) -> list[tuple[Tensor, Tensor]]:
        """Long-short logits [B, Q, N] of each branch: support frames to query token, query frames to class token."""
        return [
            (
                -scale * long_short(c.frames, c.valid, q.whole).transpose(1, 2),
                -scale * long_short(q.frames, q.valid, c.whole),
            )
            for q, c, scale in zip(seen.query, seen.classes, self.scale)
        ]

    def class_logits(self, seen: Views) -> tuple[Tensor, Tensor]:
        """Base-class logits of supports [B, N, K, C] and queries [B, Q, C]."""
        support, query = (sum((t.mean() for t in side[1:]), side[0].mean()) for side in (seen.support, seen.query))
        return self.classifier(support), self.classifier(query)

    def _distance(self, query: Tokens, classes: Tokens) -> Tensor:
        """Set distance [B, Q, N] of frames."""
        gap = 1 - pairwise_cosine(query.frames, classes.frames)
        here, there = query.valid[:, :, None], classes.valid[:, None]
        if not self.settings.single_direct:
            return hausdorff(gap, here, there, self.settings.average)
        nearest = gap.masked_fill(~there[..., None, :], 2.0).amin(-1)
        count = here.sum(-1).clamp(min=1) if self.settings.average else 1
        return (nearest * here).sum(-1) / count

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        own = self.settings
        wide = (own.hidden + 8 * self.inputs.one()[2]) * (ways * shots + queries) * (self.steps + 1)
        return 4 * (2 * wide + 4 * queries * ways * self.steps**2)


class Branch(nn.Module):
    """A class token put before the frames, position codes, one block: frames [..., T, D] -> Tokens."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, start: bool) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim) if start else torch.randn(dim))
        self.block = TokenBlock(dim, heads, hidden, dropout, start)
