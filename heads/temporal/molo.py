"""MoLo: Motion-augmented Long-short Contrastive Learning for Few-shot Action Recognition (Wang et al., CVPR 2023).

Frames are read twice: as they look, and as they change (differences of locally smoothed frames). In each branch a token
gathers the whole clip, and a contrastive loss ties it to the single frames of clips alike (long to short). Clips are
compared as sets of frames in both branches. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.positions import sinusoid
from ..parts.set_matching import hausdorff
from ..parts.steps import at_least
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..parts.token_block import BaseClasses, TokenBlock, clip_classes
from ..scoring.once_per_clip import KEPT_BYTES, in_parts
from ..settings import Recipe, Settings

EPSILON = 0.01  # added to the product of norms in every cosine, as released


@dataclass(frozen=True)
class MoLoSettings(Settings):
    """side: height and width of the features, where they are maps flattened as [C, side, side]; 1 for pooled ones.

    rescale: multiply unit features by sqrt(C), the scale position codes were chosen for.
    position_a, position_b: frames become x sqrt(C / a) + b code.
    rectify: ReLU behind the blocks.
    heads, width, hidden: of the blocks (published: width 0, which is C, and hidden 2048; smaller here: cached features
        have few base classes).
    motion: weight of the motion branch's distance. reduce: motion maps have C / reduce channels.
    average: distances average over frames (the paper) instead of adding them up (released). scale: multiplies them; 8
        is what a sum over the released eight frames amounts to.
    single_direct: only the query's frames look for their nearest.
    class_weight, contrast_weight: of the auxiliary losses. classes: rows of the classifier of base classes.
    start: blocks begin as the identity and motion as plain differences; False: at random.
    """

    side: int = 1
    rescale: bool = True
    position_a: float = 2048.0
    position_b: float = 0.02
    heads: int = 8
    width: int = 128
    hidden: int = 256
    dropout: float = 0.2
    rectify: bool = True
    motion: float = 0.3
    reduce: int = 8
    average: bool = True
    scale: float = 8.0
    single_direct: bool = False
    class_weight: float = 0.1
    contrast_weight: float = 0.05
    classes: int = 1024
    start: bool = True


class Tokens(NamedTuple):
    """One branch's view of clips [...]: whole [..., C], the class token; frames [..., T, C], valid bool [..., T]."""

    whole: Tensor
    frames: Tensor
    valid: Tensor

    def mean(self) -> Tensor:
        """Mean [..., C] of the class token and the valid frames."""
        weight = self.valid.to(self.frames.dtype)[..., None]
        return (self.whole + (self.frames * weight).sum(-2)) / (1 + weight.sum(-2))


class Views(NamedTuple):
    """[appearance, motion] of supports [B, N, K] and queries [B, Q]; classes [B, N] are their supports' means.

    asked bool [B, Q], known bool [B, N]: which queries and classes are there.
    """

    support: list[Tokens]
    query: list[Tokens]
    classes: list[Tokens]
    asked: Tensor
    known: Tensor


class MoLo(Head):
    """Without the decoder that regresses pixel differences in training: cached features have no pixels."""

    settings_class = MoLoSettings
    recipe = Recipe(
        steps=100,
        tasks=4,
        query=5,
        rate=1e-4,
        weight_decay=5e-4,
        mix=0.5,
        evaluate_every=25,
        evaluate_episodes=60,
    )
    sequences = True
    pairwise = True

    def __init__(self, inputs: Inputs, settings: MoLoSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        _, self.steps, flat = inputs.one()
        if own.side < 1 or flat % own.side**2:
            raise UsageError(
                f"side={own.side} does not fit features of width {flat}; use 1 for pooled features."
            )
        self.width = flat // own.side**2
        self.gain = math.sqrt(self.width) if own.rescale else 1.0
        self.appearance, self.movement = (Branch(self.width, own) for _ in range(2))
        self.motion = Motion(
            self.width, max(self.width // own.reduce, 1), 3 if own.side > 1 else 1, own.start
        )
        self.temperature = nn.Parameter(torch.ones(2))  # of the two branches' long-short logits
        self.classifier = nn.Linear(self.width, own.classes)
        self.base = BaseClasses(own.classes)

    def fit_base(self, base: FeatureBank) -> None:
        self.base.remember(base)

    def forward(self, episodes: Episodes) -> Tensor:
        return self.logits(self.views(episodes))

    def loss(self, episodes: Episodes) -> Losses:
        """CE + class_weight CE over base classes + contrast_weight times the sum of four long-short CEs."""
        classes = None if episodes.multi else clip_classes(episodes)
        return self.objective(self.views(episodes), episodes.query_label, classes)

    def objective(self, seen: Views, label: Tensor, classes: tuple[Tensor, Tensor] | None) -> Losses:
        """As loss. classes: label-set class of every clip, supports first, and which clips count, [B, N*K + Q] each."""
        own = self.settings
        contrasts = [cross_entropy(logits, label) for pair in self.contrasts(seen) for logits in pair]
        parts = {"ce": cross_entropy(self.logits(seen), label), "contrast": torch.stack(contrasts).sum()}
        total = parts["ce"] + own.contrast_weight * parts["contrast"]
        if classes is not None:
            parts["class"] = self.base.cross_entropy(self.class_logits(seen), *classes)
            total = total + own.class_weight * parts["class"]
        return Losses(total, parts)

    @torch.no_grad()
    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Both branches of every clip are found once."""
        if 8 * len(bank) * (self.steps + 1) * self.width > KEPT_BYTES:
            return None
        parts = [self.tokens(clips) for clips in in_parts(bank)]
        kept = [Tokens(*(torch.cat(each) for each in zip(*branch))) for branch in zip(*parts)]

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            drawn = index.support.to(bank.device), index.query.to(bank.device)
            support, query = ([Tokens(*(t[r] for t in branch)) for branch in kept] for r in drawn)
            shown, asked = (torch.ones_like(r, dtype=torch.bool) for r in drawn)
            classes = [class_tokens(tokens, shown) for tokens in support]
            return self.logits(Views(support, query, classes, asked, shown.any(2))).float()

        return Scorer(score)

    def views(self, episodes: Episodes) -> Views:
        """Both branches of every clip."""
        support, query = single(episodes)
        s, q = self.tokens(support), self.tokens(query)
        classes = [class_tokens(tokens, support.present) for tokens in s]
        return Views(s, q, classes, query.present, support.present.any(2))

    def tokens(self, stream: Stream) -> list[Tokens]:
        """[appearance, motion] of clips [..., T, C * side^2]; a clip of one step holds it for two."""
        stream = at_least(stream, 2)
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.gain
        maps = x.unflatten(-1, (-1, self.settings.side, self.settings.side))
        valid = stream.mask()
        moved = self.motion(maps.flatten(0, -5)).view(*valid.shape[:-1], -1, self.width)
        return [self.appearance(maps.mean((-1, -2)), valid), self.movement(moved, valid[..., 1:])]

    def logits(self, seen: Views) -> Tensor:
        """Minus scale (d_appearance + motion d_motion), [B, Q, N]."""
        appearance, motion = (self._distance(q, c) for q, c in zip(seen.query, seen.classes))
        distance = appearance + self.settings.motion * motion
        return neutral(-self.settings.scale * distance, seen.asked, seen.known)

    def contrasts(self, seen: Views) -> list[tuple[Tensor, Tensor]]:
        """Long-short logits [B, Q, N] of each branch: class frames to query token, query frames to class token."""
        return [
            (
                neutral(-scale * long_short(c, q.whole).transpose(1, 2), seen.asked, seen.known),
                neutral(-scale * long_short(q, c.whole), seen.asked, seen.known),
            )
            for q, c, scale in zip(seen.query, seen.classes, self.temperature)
        ]

    def class_logits(self, seen: Views) -> Tensor:
        """Label-set logits [B, N*K + Q, rows] of all clips, supports first: both branches' means added."""
        both = [torch.cat([s.mean().flatten(1, 2), q.mean()], 1) for s, q in zip(seen.support, seen.query)]
        return self.classifier(both[0] + both[1])

    def _distance(self, query: Tokens, classes: Tokens) -> Tensor:
        """Set distance [B, Q, N] of frames: each looks for its nearest, both ways."""
        own = self.settings
        gap = 1 - frame_cosines(query.frames, classes.frames)
        here, there = query.valid[:, :, None], classes.valid[:, None]
        if not own.single_direct:
            return hausdorff(gap, here, there, own.average)
        nearest = gap.masked_fill(~there[..., None, :], 2.0).amin(-1)
        return (nearest * here).sum(-1) / (here.sum(-1).clamp(min=1) if own.average else 1)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """Two branches of blocks (their widest layer and a few copies), and the frame pairs."""
        tokens = (ways * shots + queries) * (self.steps + 1)
        return 8 * tokens * (self.settings.hidden + 8 * self.width) + 16 * queries * ways * self.steps**2


class Branch(nn.Module):
    """A class token put before the frames [..., T, C], position codes, one block."""

    def __init__(self, dim: int, own: MoLoSettings) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim) if own.start else torch.randn(dim))
        self.block = TokenBlock(dim, own.heads, own.width, own.hidden, own.dropout, own.start)
        self.dropout = nn.Dropout(own.dropout / 2)
        self.by, self.code, self.rectify = math.sqrt(dim / own.position_a), own.position_b, own.rectify

    def forward(self, frames: Tensor, valid: Tensor) -> Tokens:
        token = self.token.expand(*frames.shape[:-2], 1, -1)
        x = torch.cat([token, frames], -2)
        x = self.dropout(x * self.by + self.code * sinusoid(x.shape[-2], x, slow=False))
        x = self.block(x, F.pad(valid, (1, 0), value=True))
        x = x.relu() if self.rectify else x
        return Tokens(x[..., 0, :], x[..., 1:, :], valid)


class Motion(nn.Module):
    """Changes between neighbouring frames: maps [M, T, C, H, W] -> [M, T-1, C].

    r = conv over time and space, c = conv of r per frame, d_t = c_{t+1} - r_t; mean over space of ReLU(up d).
    """

    def __init__(self, dim: int, narrow: int, side: int, start: bool) -> None:
        super().__init__()
        self.reduce = nn.Conv3d(dim, narrow, (3, side, side), padding=(1, side // 2, side // 2))
        self.smooth = nn.Conv2d(narrow, narrow, side, padding=side // 2)
        self.up = nn.Conv2d(narrow, dim, 1)
        if start:
            self._plain(side // 2)

    @torch.no_grad()
    def _plain(self, centre: int) -> None:
        """Begin with differences of the frames themselves, in a random basis."""
        for layer in (self.reduce, self.smooth, self.up):
            for weight in layer.parameters():
                weight.zero_()
        nn.init.orthogonal_(self.reduce.weight[:, :, 1, centre, centre])
        self.smooth.weight[:, :, centre, centre] = torch.eye(len(self.smooth.weight))
        nn.init.orthogonal_(self.up.weight[:, :, 0, 0])

    def forward(self, maps: Tensor) -> Tensor:
        reduced = self.reduce(maps.transpose(1, 2)).transpose(1, 2)
        smooth = self.smooth(reduced.flatten(0, 1)).view_as(reduced)
        change = smooth[:, 1:] - reduced[:, :-1]
        return self.up(change.flatten(0, 1)).relu().mean((-1, -2)).unflatten(0, change.shape[:2])


def class_tokens(support: Tokens, present: Tensor) -> Tokens:
    """Means over the shots [B, N, K] that are there, step by step; a step is valid where any shot has it."""
    weight = support.valid.to(support.frames.dtype)[..., None]
    frames = (support.frames * weight).sum(2) / weight.sum(2).clamp(min=1)
    shown = present.to(weight.dtype)[..., None]
    whole = (support.whole * shown).sum(2) / shown.sum(2).clamp(min=1)
    return Tokens(whole, frames, support.valid.any(2))


def frame_cosines(query: Tensor, classes: Tensor) -> Tensor:
    """Cosines [B, Q, N, T, S] of all frames: query [B, Q, T, C], classes [B, N, S, C]."""
    flat = cosine(query.flatten(1, 2), classes.flatten(1, 2), EPSILON)
    return flat.unflatten(1, query.shape[1:3]).unflatten(-1, classes.shape[1:3]).transpose(2, 3)


def long_short(short: Tokens, whole: Tensor) -> Tensor:
    """Sum over the valid frames of one minus the cosine to a token: clips [B, I], tokens [B, J, C] -> [B, I, J]."""
    gap = 1 - cosine(short.frames.flatten(1, 2), whole, EPSILON).unflatten(1, short.valid.shape[1:])
    return (gap * short.valid[..., None].to(gap.dtype)).sum(2)
