"""TARN: Temporal Attentive Relation Network for Few-Shot and Zero-Shot Action Recognition (Bishay et al., BMVC 2019).

Segments are embedded by a bidirectional GRU; each query segment is aligned to the support's segments by attention and
compared with what it is aligned to; a GRU reads the comparisons in order and gives the pair's relation score. With no
supports (K = 0) a class is one segment, mapped from its words. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import targets
from ..parts.recurrent import BothWays, last
from ..parts.starts import AlignedStart, CosineStart
from ..parts.steps import scaled, unit_gain
from ..parts.tensors import single
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, Positive, Settings
from .recipes import RELATION


@dataclass(frozen=True)
class TARNSettings(Settings):
    """TARN's settings."""

    hidden: Count = 32
    """The width of the embedding GRU, in each direction (paper: 256)."""
    relation: Count = 32
    """The width of the comparing GRU (paper: 256)."""
    compare: Literal["euccos", "mult", "subt"] = "euccos"
    """How a query segment is compared with what it is aligned to: by cosine and distance, product or difference."""
    align: Literal["support", "query"] = "support"
    """Whose segments attention is normalised over: a query segment's attention over the support's segments sums to one
    (the paper), or it is normalised over the query's segments (the public re-implementation)."""
    padded: bool = False
    """GRUs run over the zero padding and the last padded state is read, as in that re-implementation."""
    start: bool = True
    """Add a training-free similarity of aligned segments (without supports: a cosine to words mapped by ridge
    regression) to a relation that begins at zero; learned from nothing, few base classes do not reach such a rule."""
    ridge: Positive = 1.0
    """The regularisation of the map from words to features."""


class Relations(NamedTuple):
    """Relation scores [B, Q, N, K] of all pairs before the sigmoid.

    support_present: bool [B, N, K]; query_present: bool [B, Q]. Without supports the class's words stand in for one
    support of one segment.
    """

    score: Tensor
    support_present: Tensor
    query_present: Tensor


class TARN(Head[TARNSettings]):
    Settings = TARNSettings
    recipe = replace(RELATION, weight_decay=5e-4)
    word_map: Tensor
    word_offset: Tensor

    def __init__(self, inputs: Inputs, settings: TARNSettings) -> None:
        super().__init__(inputs, settings)
        dim, width = inputs.one()[2], 2 * settings.hidden
        self.embed = BothWays(nn.GRU, dim, settings.hidden)
        self.align = nn.Linear(width, width, bias=False)
        self.align_bias = nn.Parameter(torch.ones(width))
        compared = 2 if settings.compare == "euccos" else width
        self.compare = nn.GRU(compared, settings.relation, batch_first=True)
        self.out = nn.Linear(settings.relation, 1)
        self.words = None if inputs.word_dim is None else nn.Linear(inputs.word_dim, width)
        self.aligned = AlignedStart() if settings.start else None
        self.cosine = CosineStart() if settings.start and inputs.word_dim else None
        self.gain = unit_gain(dim, rescale=settings.start)
        if settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        words = inputs.word_dim or 1
        self.register_buffer("word_map", torch.zeros(words, dim))
        self.register_buffer("word_offset", torch.zeros(2, max(words, dim)))

    def fit_base(self, base: FeatureBank) -> None:
        """Maps the base classes' words to their mean features by ridge regression: the start of the zero-shot rule."""
        if base.words is None or self.words is None or base.multi:
            return
        (table,) = base.tables.values()
        pooled = table.pooled()
        x, label = pooled.x[pooled.present, 0].double(), base.label[pooled.present]
        total = torch.zeros(len(base.class_names), x.shape[1], dtype=x.dtype, device=x.device).index_add(
            0, label, x
        )
        count = torch.bincount(label, minlength=len(total)).clamp(min=1)[:, None]
        mean, words = total / count, F.normalize(base.words.double(), dim=-1)
        self.word_offset[0, : words.shape[1]] = words.mean(0)
        self.word_offset[1, : mean.shape[1]] = mean.mean(0)
        w, y = words - words.mean(0), mean - mean.mean(0)
        gram = w @ w.t() + self.settings.ridge * torch.eye(len(w), dtype=w.dtype, device=w.device)
        self.word_map.copy_(w.t() @ torch.linalg.solve(gram, y))

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: log-odds of the mean relation score over a class's supports."""
        pairs = self.relations(episodes)
        return neutral(
            log_odds(pairs.score, pairs.support_present), pairs.query_present, pairs.support_present.any(-1)
        )

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each pair of clips is scored once; but padded states depend on the longest query of the batch."""
        return () if self.settings.padded else (FromPairs(head=self, pool=log_odds),)

    def loss(self, episodes: Episodes) -> Losses:
        """Binary cross-entropy of the pairs: mean over those of one class plus mean over the others."""
        pairs = self.relations(episodes)
        hot, labelled = targets(episodes, pairs.score.dtype)
        counts = (labelled & pairs.query_present)[:, :, None, None] & pairs.support_present[:, None]
        counts = counts.expand(pairs.score.shape)
        positive = _mean_where(F.softplus(-pairs.score), counts & (hot[..., None] > 0))
        negative = _mean_where(F.softplus(pairs.score), counts & (hot[..., None] == 0))
        return Losses(positive + negative, {"positive": positive, "negative": negative})

    def relations(self, episodes: Episodes) -> Relations:
        """Relation scores of all pairs of queries and supports, or of queries and class words without supports."""
        if episodes.shots == 0:
            return self._zero_shot(episodes)
        support, query = single(episodes)
        s, q = self._segments(support), self._segments(query)
        score = self._pairs(s.flatten(1, 2), support.length.flatten(1, 2), q, query.length)
        score = score.unflatten(-1, support.present.shape[1:])
        if self.aligned is not None:
            score = score + self.aligned(query, support)
        return Relations(score, support.present, query.present)

    def _zero_shot(self, episodes: Episodes) -> Relations:
        if episodes.words is None or self.words is None:
            raise UsageError(
                "Without supports TARN needs class words; extract a word stream or name one with --words."
            )
        (query,) = episodes.query.values()
        q = self._segments(query)
        words = F.normalize(episodes.words.to(q.dtype), dim=-1)
        one = torch.ones(words.shape[:2], dtype=torch.int64, device=words.device)
        score = self._pairs(self.words(words)[:, :, None], one, q, query.length)
        if self.cosine is not None:
            dim = self.word_map.shape[1]
            expected = (words - self.word_offset[0, : words.shape[-1]].to(words)) @ self.word_map.to(words)
            seen = query.pooled().to(q.dtype) - self.word_offset[1, :dim].to(words)
            score = score + self.cosine(seen, expected)
        return Relations(score[..., None], one[..., None] > 0, query.present)

    def _segments(self, clips: Stream) -> Tensor:
        """Embedded segments [..., T, 2H]; zero beyond a sequence's length."""
        x, length = scaled(clips, self.gain, self).x.flatten(0, -3), clips.length.reshape(-1)
        run = torch.full_like(length, x.shape[1]) if self.settings.padded else length
        out = torch.cat(self.embed(x, run), -1).view(*clips.x.shape[:-1], -1)
        return out * clips.mask()[..., None].to(out.dtype)

    def _pairs(self, s: Tensor, s_length: Tensor, q: Tensor, q_length: Tensor) -> Tensor:
        """Scores [B, Q, M] of supports s [B, M, Ts, C] and queries q [B, Q, Tq, C]."""
        s_valid = torch.arange(s.shape[2], device=s.device) < s_length[..., None]
        q_valid = torch.arange(q.shape[2], device=q.device) < q_length[..., None]
        affinity = torch.einsum("bmjc,bqic->bqmij", self.align(s) + self.align_bias, q)
        both = s_valid[:, None, :, None, :] & q_valid[:, :, None, :, None]
        axis = -1 if self.settings.align == "support" else -2
        weight = torch.softmax(affinity.masked_fill(~both, -1e4), axis) * both.to(s.dtype)
        aligned = torch.einsum("bqmij,bmjc->bqmic", weight, s)
        compared = self._compare(q[:, :, None], aligned) * q_valid[:, :, None, :, None].to(s.dtype)
        batch, queries, supports, steps, width = compared.shape
        length = q_length[:, :, None].expand(-1, -1, supports)
        if self.settings.padded:
            length = q_length.amax().expand_as(length)
        states = self.compare(compared.reshape(-1, steps, width))[0]
        return self.out(last(states, length.reshape(-1))).view(batch, queries, supports)

    def _compare(self, q: Tensor, aligned: Tensor) -> Tensor:
        """Comparisons [B, Q, M, T, ...] of query segments q [B, Q, 1, T, C] with what they are aligned to."""
        if self.settings.compare == "mult":
            return q * aligned
        if self.settings.compare == "subt":
            return q - aligned
        # The square root's slope at zero is infinite: padding and identical segments stay finite with the clamp.
        apart = (q - aligned).square().sum(-1).clamp(min=1e-16).sqrt()
        return torch.stack([F.cosine_similarity(q, aligned, dim=-1), apart], -1)


def log_odds(score: Tensor, support_present: Tensor | None = None) -> Tensor:
    """Log-odds [B, Q, N] of the mean relation over the supports present, of scores [B, Q, N, K] before the sigmoid.

    support_present: bool [B, N, K]; None where all are present. With one support its score is that.
    """
    if score.shape[-1] == 1:
        return score.squeeze(-1)
    if support_present is None:
        return torch.logit(score.sigmoid().mean(-1), eps=1e-6)
    weight = support_present[:, None].to(score.dtype)
    return torch.logit((score.sigmoid() * weight).sum(-1) / weight.sum(-1).clamp(min=1), eps=1e-6)


def _mean_where(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x where the mask holds; 0 where it holds nowhere."""
    return (x * mask.to(x.dtype)).sum() / mask.sum().clamp(min=1)
