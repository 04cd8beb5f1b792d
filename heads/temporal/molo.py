"""MoLo: Motion-augmented Long-short Contrastive Learning for Few-shot Action Recognition (Wang et al., CVPR 2023).

Frames are read twice: as they look, and as they change (differences of locally smoothed frames). In each branch a token
gathers the whole clip, and a contrastive loss ties it to the single frames of clips alike (long to short). Clips are
compared as sets of frames in both branches. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.context import TaskContext
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.maps import channels_of
from ..parts.positions import sinusoid
from ..parts.set_matching import hausdorff
from ..parts.steps import at_least, scaled, unit_gain
from ..parts.tensors import single
from ..parts.token_block import BaseClasses, TokenBlock, clip_classes
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, NonNegative, Positive, Rate, Settings
from .recipes import ATTENTION

EPSILON = 0.01  # added to the product of norms in every cosine, as released


@dataclass(frozen=True)
class MoLoSettings(Settings):
    """MoLo's settings."""

    side: Count = 1
    """The height and width of the features, where they are maps flattened as [C, side, side]; 1 for pooled ones."""
    rescale: bool = True
    """Multiply unit features by sqrt(C), the scale that the position codes were chosen for."""
    position_a: Positive = 2048.0
    """What features are divided by before the position code is added: x becomes x sqrt(C / position_a)."""
    position_b: NonNegative = 0.02
    """The weight of the position code that is added to every frame."""
    heads: Count = 8
    """The attention heads of a block (as many as divide its width)."""
    width: CountOrNone = 128
    """The width of a block's attention; 0 for C, as published. It is smaller here, as cached features come with few
    base classes."""
    hidden: Count = 256
    """The width of a block's hidden layer (published: 2048)."""
    dropout: Rate = 0.2
    """The dropout of the blocks; half of it is applied to what they read."""
    rectify: bool = True
    """A ReLU follows each block."""
    motion: NonNegative = 0.3
    """The weight of the motion branch's distance."""
    reduce: Count = 8
    """The motion maps have C / reduce channels."""
    average: bool = True
    """Distances average over frames (the paper); false: they are added up (released)."""
    scale: Positive = 8.0
    """The factor of the distances; 8 is what a sum over the released eight frames amounts to."""
    single_direct: bool = False
    """Only the query's frames look for their nearest."""
    class_weight: NonNegative = 0.1
    """The weight of the cross-entropy over base classes."""
    contrast_weight: NonNegative = 0.05
    """The weight of the long-short contrastive losses."""
    classes: Count = 1024
    """The rows of the classifier of base classes."""
    start: bool = True
    """Blocks begin as the identity and motion as plain differences; false: at random."""


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
    """A batch of tasks as the objective reads it.

    support, query, classes: [appearance, motion] of supports [B, N, K], queries [B, Q] and classes [B, N], which are
    their supports' means. query_present: bool [B, Q]; class_present: bool [B, N].
    """

    support: list[Tokens]
    query: list[Tokens]
    classes: list[Tokens]
    query_present: Tensor
    class_present: Tensor

    def neutral(self, logits: Tensor) -> Tensor:
        """Logits [B, Q, N] that say nothing of absent queries and classes."""
        return neutral(logits, self.query_present, self.class_present)


class MoLo(EncodingHead[MoLoSettings, "list[Tokens]", "list[Tokens]"]):
    """Without the decoder that regresses pixel differences in training: cached features have no pixels.

    A clip is encoded as [appearance, motion].
    """

    Settings = MoLoSettings
    recipe = ATTENTION

    def __init__(self, inputs: Inputs, settings: MoLoSettings) -> None:
        super().__init__(inputs, settings)
        self.width = channels_of(inputs.one()[2], settings.side)
        self.gain = unit_gain(self.width, rescale=settings.rescale)
        self.appearance, self.movement = (Branch(self.width, settings) for _ in range(2))
        self.motion = Motion(self.width, settings)
        self.temperature = nn.Parameter(torch.ones(2))  # of the two branches' long-short logits
        self.classifier = nn.Linear(self.width, settings.classes)
        self.base = BaseClasses(settings.classes)

    def fit_base(self, base: FeatureBank) -> None:
        """Notes which rows of the classifier belong to base classes."""
        self.base.remember(base)

    def encode(self, clips: Stream) -> list[Tokens]:
        """[appearance, motion] of clips [..., T, C * side^2]; a clip of one step holds it for two."""
        clips = scaled(at_least(clips, 2), self.gain, self)
        maps = clips.x.unflatten(-1, (-1, self.settings.side, self.settings.side))
        valid = clips.mask()
        moved = self.motion(maps.flatten(0, -5)).view(*valid.shape[:-1], -1, self.width)
        return [self.appearance(maps.mean((-1, -2)), valid), self.movement(moved, valid[..., 1:])]

    def compare(self, support: list[Tokens], query: list[Tokens], context: TaskContext) -> Tensor:
        return self.logits(query, [class_tokens(branch, context.support_present) for branch in support])

    def logits(self, query: list[Tokens], classes: list[Tokens]) -> Tensor:
        """Minus scale (d_appearance + motion d_motion), [B, Q, N]."""
        appearance, motion = (self._distance(q, c) for q, c in zip(query, classes))
        return -self.settings.scale * (appearance + self.settings.motion * motion)

    def _distance(self, query: Tokens, classes: Tokens) -> Tensor:
        """Set distance [B, Q, N] of frames: each looks for its nearest, both ways unless ``single_direct``."""
        return hausdorff(
            1 - frame_cosines(query.frames, classes.frames),
            query.valid[:, :, None],
            classes.valid[:, None],
            average=self.settings.average,
            both=not self.settings.single_direct,
        )

    def shortcuts(self) -> Iterable[Shortcut]:
        """Both branches of every clip are found once; with one shot each pair of clips is scored once."""
        return (self.once_per_clip(), FromPairs(head=self, once_per_clip=self.once_per_clip()))

    def loss(self, episodes: Episodes) -> Losses:
        classes = None if episodes.multi else clip_classes(episodes)
        return self.objective(self.views(episodes), episodes.query_label, classes)

    def objective(self, views: Views, label: Tensor, classes: tuple[Tensor, Tensor] | None) -> Losses:
        """CE + class_weight CE over base classes + contrast_weight times the sum of four long-short CEs.

        label: of the queries, [B, Q]. classes: label-set class of every clip, supports first, and which clips count,
        [B, N*K + Q] each.
        """
        contrasts = [cross_entropy(logits, label) for pair in self.contrasts(views) for logits in pair]
        main = cross_entropy(views.neutral(self.logits(views.query, views.classes)), label)
        parts = {"ce": main, "contrast": torch.stack(contrasts).sum()}
        total = main + self.settings.contrast_weight * parts["contrast"]
        if classes is not None:
            parts["class"] = self.base.cross_entropy(self.class_logits(views), *classes)
            total = total + self.settings.class_weight * parts["class"]
        return Losses(total, parts)

    def views(self, episodes: Episodes) -> Views:
        """Both branches of every clip and class."""
        support, query = single(episodes)
        s, q = self.encode(support), self.encode(query)
        classes = [class_tokens(branch, support.present) for branch in s]
        return Views(s, q, classes, query.present, support.present.any(2))

    def contrasts(self, views: Views) -> list[tuple[Tensor, Tensor]]:
        """Long-short logits [B, Q, N] of each branch: class frames to query token, query frames to class token."""
        return [
            (
                views.neutral(-scale * long_short(c, q.whole).transpose(1, 2)),
                views.neutral(-scale * long_short(q, c.whole)),
            )
            for q, c, scale in zip(views.query, views.classes, self.temperature)
        ]

    def class_logits(self, views: Views) -> Tensor:
        """Label-set logits [B, N*K + Q, rows] of all clips, supports first: both branches' means added."""
        both = [torch.cat([s.mean().flatten(1, 2), q.mean()], 1) for s, q in zip(views.support, views.query)]
        return self.classifier(both[0] + both[1])


class Branch(nn.Module):
    """A class token put before the frames [..., T, C], position codes, one block."""

    def __init__(self, dim: int, settings: MoLoSettings) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(dim) if settings.start else torch.randn(dim))
        self.block = TokenBlock(
            dim, settings.heads, settings.width, settings.hidden, settings.dropout, settings.start
        )
        self.dropout = nn.Dropout(settings.dropout / 2)
        self.gain, self.code = math.sqrt(dim / settings.position_a), settings.position_b
        self.rectify = settings.rectify

    def forward(self, frames: Tensor, valid: Tensor) -> Tokens:
        """The branch's view of frames [..., T, C], of which the steps valid, bool [..., T], count."""
        token = self.token.expand(*frames.shape[:-2], 1, -1)
        x = torch.cat([token, frames], -2)
        x = self.dropout(x * self.gain + self.code * sinusoid(x.shape[-2], x, slow=False))
        x = self.block(x, F.pad(valid, (1, 0), value=True))
        x = x.relu() if self.rectify else x
        return Tokens(x[..., 0, :], x[..., 1:, :], valid)


class Motion(nn.Module):
    """Changes between neighbouring frames: maps [M, T, C, H, W] -> [M, T-1, C].

    r = conv over time and space, c = conv of r per frame, d_t = c_{t+1} - r_t; mean over space of ReLU(up d).
    """

    def __init__(self, dim: int, settings: MoLoSettings) -> None:
        super().__init__()
        narrow, side = max(dim // settings.reduce, 1), 3 if settings.side > 1 else 1
        self.reduce = nn.Conv3d(dim, narrow, (3, side, side), padding=(1, side // 2, side // 2))
        self.smooth = nn.Conv2d(narrow, narrow, side, padding=side // 2)
        self.up = nn.Conv2d(narrow, dim, 1)
        if settings.start:
            self._begin_plain(side // 2)

    @torch.no_grad()
    def _begin_plain(self, centre: int) -> None:
        """Makes the motion begin as differences of the frames themselves, in a random basis."""
        for layer in (self.reduce, self.smooth, self.up):
            for weight in layer.parameters():
                weight.zero_()
        nn.init.orthogonal_(self.reduce.weight[:, :, 1, centre, centre])
        self.smooth.weight[:, :, centre, centre] = torch.eye(len(self.smooth.weight))
        nn.init.orthogonal_(self.up.weight[:, :, 0, 0])

    def forward(self, maps: Tensor) -> Tensor:
        """Motion [M, T-1, C] of maps [M, T, C, H, W]."""
        reduced = self.reduce(maps.transpose(1, 2)).transpose(1, 2)
        smooth = self.smooth(reduced.flatten(0, 1)).view_as(reduced)
        change = smooth[:, 1:] - reduced[:, :-1]
        return self.up(change.flatten(0, 1)).relu().mean((-1, -2)).unflatten(0, change.shape[:2])


def class_tokens(support: Tokens, present: Tensor) -> Tokens:
    """Means over the present shots [B, N, K], step by step; a step is valid where any shot has it."""
    weight = support.valid.to(support.frames.dtype)[..., None]
    frames = (support.frames * weight).sum(2) / weight.sum(2).clamp(min=1)
    share = present.to(weight.dtype)[..., None]
    whole = (support.whole * share).sum(2) / share.sum(2).clamp(min=1)
    return Tokens(whole, frames, support.valid.any(2))


def frame_cosines(query: Tensor, classes: Tensor) -> Tensor:
    """Cosines [B, Q, N, T, S] of all frames: query [B, Q, T, C], classes [B, N, S, C]."""
    flat = cosine(query.flatten(1, 2), classes.flatten(1, 2), EPSILON)
    return flat.unflatten(1, query.shape[1:3]).unflatten(-1, classes.shape[1:3]).transpose(2, 3)


def long_short(short: Tokens, whole: Tensor) -> Tensor:
    """Sum over the valid frames of one minus the cosine to a token: clips [B, I], tokens [B, J, C] -> [B, I, J]."""
    gap = 1 - cosine(short.frames.flatten(1, 2), whole, EPSILON).unflatten(1, short.valid.shape[1:])
    return (gap * short.valid[..., None].to(gap.dtype)).sum(2)
