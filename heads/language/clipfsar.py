"""CLIP-FSAR: CLIP-guided Prototype Modulating for Few-shot Action Recognition (Wang et al., IJCV 2023).

The words of a class join its supports' frames as one more token of a transformer block, so that prototypes lean on what
the class is called; query frames pass the same block without words. Clips are then aligned in time as in OTAM, and a
video-text classifier of base classes keeps features and words together. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..decided import Decided
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.context import TaskContext
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.soft_alignment import alignment
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..parts.token_block import BaseClasses, TokenBlock, clip_classes
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, NonNegative, Positive, Rate, Recipe, Settings, Share

NORM_EPSILON = 0.01  # The released code adds this to the product of norms in cosines.


@dataclass(frozen=True)
class CLIPFSARSettings(Settings):
    """CLIP-FSAR's settings."""

    mode: Literal["visual", "text", "combined"] = "visual"
    """What decides in testing: the aligned distance ("visual"), words alone ("text"), or the product
    p_text^coefficient p_visual^(1 - coefficient) ("combined")."""
    coefficient: Share = 0.9
    """The exponent of the text posterior in the combined mode."""
    softness: Positive = 8.0
    """In the combined mode p_visual is the posterior of (softness - distance) / softness."""
    use_words: bool = True
    """Let class words join the supports."""
    merge: Literal["before", "after"] = "after"
    """Average the shots of a class before the block (the released many-shot settings), or after it."""
    gamma: NonNegative = 0.5
    """The softness of the alignment's minimum; 0 for the plain minimum."""
    single_direct: bool = False
    """Align the query to the class only, instead of both to one another."""
    scale: Positive = 1.0
    """The factor of the distances in the visual mode."""
    depth: CountOrNone = 1
    """The number of transformer blocks."""
    heads: Count = 8
    """The number of attention heads (as many as divide the width)."""
    width: CountOrNone = 128
    """The width of the attention; 0 for D, as published (smaller here, as cached features come with few base
    classes)."""
    hidden: Count = 256
    """The width of the block's hidden layer (2048 in the paper)."""
    dropout: Rate = 0.0
    """The dropout in the block."""
    class_weight: NonNegative = 1.5
    """The weight of the video-text loss."""
    rescale: bool = True
    """Multiply unit features by sqrt(D), the scale of CLIP's own features."""
    classes: Count = 1024
    """The number of classes of the label set that the video-text loss may tell apart."""
    start: bool = True
    """The block begins as the identity; false: at random, as published."""


class Frames(NamedTuple):
    """Frames x [..., T, D] of clips or classes, and which of them count, valid, bool [..., T]."""

    x: Tensor
    valid: Tensor


class CLIPFSAR(EncodingHead[CLIPFSARSettings, Frames, Frames]):
    """A head whose class words, where they are of another width than the features, are mapped by a learned layer.

    Without words the extra token and the video-text loss fall away, and only the visual mode is left.
    """

    Settings = CLIPFSARSettings
    decided: ClassVar[Mapping[str, Decided]] = {"coefficient, softness and depth": Decided("none")}
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
    words: Tensor

    def __init__(self, inputs: Inputs, settings: CLIPFSARSettings) -> None:
        """Raises UsageError where a mode needs class words and there are none."""
        super().__init__(inputs, settings)
        word_dim = inputs.word_dim if settings.use_words else None
        if settings.mode != "visual" and word_dim is None:
            raise UsageError(
                f"mode={settings.mode} needs class words; name a word stream with --words or use mode=visual."
            )
        dim = inputs.one()[2]
        self.gain = math.sqrt(dim) if settings.rescale else 1.0
        self.blocks = nn.ModuleList(
            TokenBlock(
                dim,
                heads=settings.heads,
                width=settings.width,
                hidden=settings.hidden,
                dropout=settings.dropout,
                start=settings.start,
            )
            for _ in range(settings.depth)
        )
        self.temperature = nn.Parameter(torch.ones(1))
        self.speak: nn.Identity | nn.Linear | None = None
        if word_dim is not None:
            self.speak = nn.Identity() if word_dim == dim else nn.Linear(word_dim, dim)
            self.base = BaseClasses(settings.classes)
            self.register_buffer("words", torch.zeros(settings.classes, word_dim))

    def fit_base(self, base: FeatureBank) -> None:
        """Keeps the words of the base classes for the video-text loss."""
        if self.speak is not None and base.words is not None:
            rows = self.base.remember(base)
            self.words[rows] = base.words.to(self.words)

    def encode(self, clips: Stream) -> Frames:
        """A support is its frames: the block has to wait for the words of its class."""
        frames = self._scaled(clips)
        return Frames(frames.x, frames.mask())

    def encode_query(self, clips: Stream) -> Frames:
        """A query is its frames behind the block, which it passes without words."""
        frames = self.encode(clips)
        return Frames(self.block(frames.x, frames.valid), frames.valid)

    def compare(self, support: Frames, query: Frames, context: TaskContext) -> Tensor:
        """The logits [B, Q, N] of the visual mode."""
        return -self.settings.scale * self.distance(support, query, context.words)

    def forward(self, episodes: Episodes) -> Tensor:
        if self.settings.mode == "visual":
            return super().forward(episodes)
        support, query = single(episodes)
        class_present = support.present.any(2)
        every_class = torch.ones_like(class_present)  # Words also tell of classes without supports.
        text = self.text_logits(query, self.mapped(episodes.words))
        if self.settings.mode == "text":
            return neutral(text, query.present, every_class)
        distance = self.distance(self.encode(support), self.encode_query(query), episodes.words)
        visual = neutral(1 - distance / self.settings.softness, query.present, class_present)
        share = self.settings.coefficient
        both = share * F.log_softmax(text, -1) + (1 - share) * F.log_softmax(visual, -1)
        return neutral(both, query.present, every_class)

    def shortcuts(self) -> Iterable[Shortcut]:
        """In the visual mode each clip passes the block once as a query; in an episode only the classes do."""
        return super().shortcuts() if self.settings.mode == "visual" else ()

    def loss(self, episodes: Episodes) -> Losses:
        """The cross-entropy of the visual mode + class_weight that of all clips against the words of base classes."""
        parts = {"ce": cross_entropy(super().forward(episodes), episodes.query_label)}
        total = parts["ce"]
        if self.speak is not None and not episodes.multi and bool(self.base.known.any()):
            truth, counted = clip_classes(episodes)
            logits = self.class_logits(*single(episodes), self.words)
            parts["class"] = self.base.cross_entropy(logits, truth, counted)
            total = total + self.settings.class_weight * parts["class"]
        return Losses(total, parts)

    def class_logits(self, support: Stream, query: Stream, words: Tensor) -> Tensor:
        """Video-text logits [B, N*K + Q, C] of all clips, supports first, against words [C, E]."""
        clips = torch.cat([self._scaled(support).pooled().flatten(1, 2), self._scaled(query).pooled()], 1)
        return self.temperature * cosine(clips, self.mapped(words), NORM_EPSILON)

    def text_logits(self, query: Stream, words: Tensor) -> Tensor:
        """Logits [B, Q, N], temperature times the cosine of the mean frame, of queries and mapped words [B, N, D]."""
        return self.temperature * cosine(self._scaled(query).pooled(), words)

    def distance(self, support: Frames, query: Frames, words: Tensor | None) -> Tensor:
        """The aligned distance [B, Q, N] of encoded queries to prototypes of encoded supports and words [B, N, E]."""
        mapped = None if self.speak is None else self.mapped(words)
        return self.aligned(query, self.prototypes(support, mapped))

    def aligned(self, query: Frames, classes: Frames) -> Tensor:
        """The distance [B, Q, N] of queries' frames [B, Q, T, D] to those of classes [B, N, T, D]."""
        gap = 1 - cosine(query.x.flatten(1, 2), classes.x.flatten(1, 2), NORM_EPSILON)
        matrix = gap.unflatten(1, query.x.shape[1:3]).unflatten(-1, classes.x.shape[1:3])
        matrix = matrix.permute(2, 4, 0, 1, 3)
        rows = query.valid.sum(-1).clamp(min=1)[:, :, None]
        columns = classes.valid.sum(-1).clamp(min=1)[:, None]
        ahead = alignment(matrix, self.settings.gamma, rows, columns)
        if self.settings.single_direct:
            return ahead
        return ahead + alignment(matrix.transpose(0, 1), self.settings.gamma, columns, rows)

    def prototypes(self, support: Frames, words: Tensor | None) -> Frames:
        """The frames [B, N, T, D] of classes, from those of shots and one token each of mapped words [B, N, D]."""
        if self.settings.merge == "before":
            merged = shot_mean(support.x, support.valid)
            return Frames(self.block(merged.x, merged.valid, words), merged.valid)
        each = None if words is None else words[:, :, None].expand(*support.x.shape[:3], -1)
        return shot_mean(self.block(support.x, support.valid, each), support.valid)

    def block(self, x: Tensor, valid: Tensor, words: Tensor | None = None) -> Tensor:
        """Frames [..., T, D] behind the transformer, which reads them and, where given, a token of words [..., D]."""
        steps = x.shape[-2]
        if words is not None:
            x = torch.cat([x, words[..., None, :]], -2)
            valid = F.pad(valid, (0, 1), value=True)
        for block in self.blocks:
            x = block(x, valid)
        return x[..., :steps, :]

    def mapped(self, words: Tensor | None) -> Tensor:
        """Class words [..., E] as features [..., D]. Raises UsageError where there are none."""
        if words is None or self.speak is None:
            raise UsageError(
                "CLIP-FSAR was built for class words and the task has none; name them with --words."
            )
        features: Tensor = self.speak(words.to(self.temperature.dtype))
        return features

    def _scaled(self, stream: Stream) -> Stream:
        """Clips in the weights' dtype and in CLIP's scale."""
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.gain
        return Stream(x, stream.present, stream.length)


def shot_mean(x: Tensor, valid: Tensor) -> Frames:
    """The mean over the shots of x [B, N, K, T, D], step by step; a step is valid where any shot's is.

    valid: bool [B, N, K, T].
    """
    weight = valid.to(x.dtype)[..., None]
    return Frames((x * weight).sum(2) / weight.sum(2).clamp(min=1), valid.any(2))
