"""CLIP-FSAR: CLIP-guided Prototype Modulating for Few-shot Action Recognition (Wang et al., IJCV 2023).

The words of a class join its supports' frames as one more token of a transformer block, so that prototypes lean on what
the class is called; query frames pass the same block without words. Clips are then aligned in time as in OTAM, and a
video-text classifier of base classes keeps features and words together. Inductive.
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
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.soft_alignment import alignment
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..parts.token_block import BaseClasses, TokenBlock, clip_classes
from ..scoring.once_per_clip import KEPT_BYTES, in_parts
from ..settings import Recipe, Settings

EPSILON = 0.01  # added to the product of norms in cosines, as released
MODES = ("visual", "text", "combined")


@dataclass(frozen=True)
class CLIPFSARSettings(Settings):
    """mode: what decides in testing: the aligned distance ("visual"), words alone ("text"), or the product
    p_text^coefficient p_visual^(1 - coefficient) ("combined"). coefficient, softness: of that product; p_visual is the
        posterior of (softness - distance) / softness.
    use_words: whether class words join the supports. merge: average the shots of a class before the block ("before", as
        in the released many-shot settings) or behind it ("after").
    depth, heads, width, hidden: of the block (published: width 0, which is D, and hidden 2048; smaller here, as cached
        features come with few base classes).
    gamma: of the soft minimum. single_direct: align one way only. scale: multiplies the distances.
    class_weight: of the video-text loss. rescale: multiply unit features by sqrt(D), the scale of CLIP's own features.
    classes: the number of label-set classes that the loss may tell apart. start: the block begins as the identity.
    """

    mode: str = "visual"
    coefficient: float = 0.9
    softness: float = 8.0
    use_words: bool = True
    merge: str = "after"
    gamma: float = 0.5
    single_direct: bool = False
    scale: float = 1.0
    depth: int = 1
    heads: int = 8
    width: int = 128
    hidden: int = 256
    dropout: float = 0.0
    class_weight: float = 1.5
    rescale: bool = True
    classes: int = 1024
    start: bool = True


class Clips(NamedTuple):
    """Frames x [..., T, D] and valid bool [..., T]."""

    x: Tensor
    valid: Tensor


class CLIPFSAR(Head):
    """Class words of another width than the features are mapped to it by a learned linear layer; without words the
    extra token and the video-text loss fall away, and only the visual mode is left.
    """

    settings_class = CLIPFSARSettings
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
    words: Tensor

    def __init__(self, inputs: Inputs, settings: CLIPFSARSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        for name, value, known in (("mode", own.mode, MODES), ("merge", own.merge, ("before", "after"))):
            if value not in known:
                raise unknown(name, value, known)
        width = inputs.word_dim if own.use_words else None
        if own.mode != "visual" and width is None:
            raise UsageError(
                f"mode={own.mode} needs class words; name a word stream with --words or use mode=visual."
            )
        _, self.steps, self.dim = inputs.one()
        self.gain = math.sqrt(self.dim) if own.rescale else 1.0
        self.blocks = nn.ModuleList(
            TokenBlock(self.dim, own.heads, own.width, own.hidden, own.dropout, own.start)
            for _ in range(own.depth)
        )
        self.temperature = nn.Parameter(torch.ones(1))
        self.speak: nn.Module | None = None
        if width is not None:
            self.speak = nn.Identity() if width == self.dim else nn.Linear(width, self.dim)
            self.base = BaseClasses(own.classes)
            self.register_buffer("words", torch.zeros(own.classes, width))

    def fit_base(self, base: FeatureBank) -> None:
        """Keeps the words of the base classes for the video-text loss."""
        if self.speak is not None and base.words is not None:
            rows = self.base.remember(base)
            self.words[rows] = base.words.to(self.words)

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        asked, known = query.present, support.present.any(2)
        if self.settings.mode == "text":
            return neutral(self.text_logits(query, self._spoken(episodes)), asked, torch.ones_like(known))
        distance = self.distance(episodes)
        if self.settings.mode == "visual":
            return neutral(-self.settings.scale * distance, asked, known)
        visual = neutral(1 - distance / self.settings.softness, asked, known)
        text = self.text_logits(query, self._spoken(episodes))
        share = self.settings.coefficient
        both = share * F.log_softmax(text, -1) + (1 - share) * F.log_softmax(visual, -1)
        return neutral(both, asked, torch.ones_like(known))

    @torch.no_grad()
    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Queries pass the transformer alone, so every clip does once; in an episode only the classes do."""
        (table,) = bank.tables.values()
        wordless = self.speak is not None and bank.words is None
        if self.settings.mode != "visual" or wordless or 4 * len(bank) * self.steps * self.dim > KEPT_BYTES:
            return None
        kept = torch.cat([self.block(s.x, s.mask()) for s in map(self._read, in_parts(bank))])

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = index.support.to(bank.device), index.query.to(bank.device)
            told = None
            if self.speak is not None and bank.words is not None:
                told = self._speak(bank.words[index.classes.to(bank.device)])
            classes = self.prototypes(table.gather(support), told)
            distance = self.aligned(kept[query], table.length.to(bank.device)[query], classes)
            return (-self.settings.scale * distance).float()

        return Scorer(score)

    def loss(self, episodes: Episodes) -> Losses:
        """CE of minus the distance + class_weight CE of all clips against the words of all base classes."""
        support, query = single(episodes)
        logits = neutral(
            -self.settings.scale * self.distance(episodes), query.present, support.present.any(2)
        )
        parts = {"ce": cross_entropy(logits, episodes.query_label)}
        total = parts["ce"]
        if self.speak is not None and not episodes.multi and bool(self.base.known.any()):
            truth, there = clip_classes(episodes)
            parts["class"] = self.base.cross_entropy(
                self.class_logits(support, query, self.words), truth, there
            )
            total = total + self.settings.class_weight * parts["class"]
        return Losses(total, parts)

    def class_logits(self, support: Stream, query: Stream, words: Tensor) -> Tensor:
        """Video-text logits [B, N*K + Q, C] of all clips, supports first, against words [C, E]."""
        clips = torch.cat([self._read(support).pooled().flatten(1, 2), self._read(query).pooled()], 1)
        return self.temperature * cosine(clips, self._speak(words), EPSILON)

    def text_logits(self, query: Stream, words: Tensor) -> Tensor:
        """Queries [B, Q] against mapped words [B, N, D]: temperature times the cosine of the mean frame, [B, Q, N]."""
        return self.temperature * cosine(self._read(query).pooled(), words)

    def distance(self, episodes: Episodes) -> Tensor:
        """Aligned distance [B, Q, N] of queries to modulated prototypes."""
        support, query = single(episodes)
        classes = self.prototypes(support, self._spoken(episodes) if self.speak is not None else None)
        asked = self._read(query)
        return self.aligned(self.block(asked.x, asked.mask()), asked.length, classes)

    def aligned(self, frames: Tensor, length: Tensor, classes: Clips) -> Tensor:
        """Distance [B, Q, N] of queries' frames [B, Q, T, D], of which ``length`` [B, Q] count, to classes."""
        gap = 1 - cosine(frames.flatten(1, 2), classes.x.flatten(1, 2), EPSILON)
        matrix = (
            gap.unflatten(1, frames.shape[1:3]).unflatten(-1, classes.x.shape[1:3]).permute(2, 4, 0, 1, 3)
        )
        rows = length.clamp(min=1)[:, :, None]
        columns = classes.valid.sum(-1).clamp(min=1)[:, None]
        ahead = alignment(matrix, self.settings.gamma, rows, columns)
        if self.settings.single_direct:
            return ahead
        return ahead + alignment(matrix.transpose(0, 1), self.settings.gamma, columns, rows)

    def prototypes(self, support: Stream, words: Tensor | None) -> Clips:
        """Frames [B, N, T, D] of the classes: shots [B, N, K, T, D] with words [B, N, D] as one more token each."""
        read = self._read(support)
        if self.settings.merge == "before":
            merged = shot_mean(read.x, read.mask())
            return Clips(self.block(merged.x, merged.valid, words), merged.valid)
        spoken = None if words is None else words[:, :, None].expand(*read.x.shape[:3], -1)
        return shot_mean(self.block(read.x, read.mask(), spoken), read.mask())

    def block(self, x: Tensor, valid: Tensor, words: Tensor | None = None) -> Tensor:
        """The transformer over frames x [..., T, D] and, where given, a token of words [..., D]; T frames out."""
        steps = x.shape[-2]
        if words is not None:
            x = torch.cat([x, words[..., None, :]], -2)
            valid = F.pad(valid, (0, 1), value=True)
        for block in self.blocks:
            x = block(x, valid)
        return x[..., :steps, :]

    def _read(self, stream: Stream) -> Stream:
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.gain
        return Stream(x, stream.present, stream.length)

    def _spoken(self, episodes: Episodes) -> Tensor:
        """The episodes' class words [B, N, D]. Raises UsageError where they have none."""
        if episodes.words is None:
            raise UsageError(
                "CLIP-FSAR was built for class words and the task has none; name them with --words."
            )
        return self._speak(episodes.words)

    def _speak(self, words: Tensor) -> Tensor:
        assert self.speak is not None
        spoken: Tensor = self.speak(words.to(self.temperature.dtype))
        return spoken

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """The block's widest layer with a few copies, and the distance matrices."""
        tokens = (ways * shots + queries) * (self.steps + 1)
        return 4 * tokens * (self.settings.hidden + 8 * self.dim) + 24 * queries * ways * self.steps**2


def shot_mean(x: Tensor, valid: Tensor) -> Clips:
    """Mean over the shots of x [B, N, K, T, D], valid [B, N, K, T], step by step; valid where any shot is."""
    weight = valid.to(x.dtype)[..., None]
    return Clips((x * weight).sum(2) / weight.sum(2).clamp(min=1), valid.any(2))
