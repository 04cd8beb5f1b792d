"""TARN: Temporal Attentive Relation Network for Few-Shot and Zero-Shot Action Recognition (Bishay et al., BMVC 2019).

Segments are embedded by a bidirectional GRU; each query segment is aligned to the support's segments by attention and
compared with what it is aligned to; a GRU reads the comparisons in order and gives the pair's relation score. With no
supports (K = 0) a class is one segment, mapped from its words. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import targets
from ..parts.recurrent import BothWays, last
from ..parts.starts import AlignedStart, CosineStart
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..settings import Recipe, Settings

COMPARISONS = {"euccos": 2, "mult": 0, "subt": 0}  # width of a comparison; 0: that of the embedding


@dataclass(frozen=True)
class TARNSettings(Settings):
    """hidden: of the embedding GRU, a direction (paper 256). relation: of the comparing GRU (paper 256).

    compare: "euccos" (cosine and distance), "mult" or "subt".
    align: "support" (a query segment's attention over the support's segments sums to one: paper) or "query" (the
    public re-implementation normalises over the query's segments).
    padded: GRUs run over the zero padding and the last padded state is read (that re-implementation).
    start: add a training-free similarity of aligned segments (without supports: a cosine to words mapped by ridge
    regression) to a relation that begins at zero; learned from nothing, few base classes do not reach such a rule.
    ridge: regularisation of that map.
    """

    hidden: int = 32
    relation: int = 32
    compare: str = "euccos"
    align: str = "support"
    padded: bool = False
    start: bool = True
    ridge: float = 1.0


class TARN(Head):
    settings_class = TARNSettings
    recipe = Recipe(
        steps=200,
        tasks=4,
        query=5,
        weight_decay=5e-4,
        clip_norm=1.0,
        evaluate_episodes=200,
        patience=4,
        mix=0.5,
    )
    sequences = True
    pairwise = True
    pools_shots = True
    word_map: Tensor
    word_offset: Tensor

    def __init__(self, inputs: Inputs, settings: TARNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        given, dim = self.settings, inputs.one()[2]
        if given.compare not in COMPARISONS:
            raise unknown("comparison", given.compare, COMPARISONS)
        if given.align not in ("support", "query"):
            raise unknown("alignment", given.align, ("support", "query"))
        self.pairwise = not given.padded  # padded states depend on the longest query of the batch
        width = 2 * given.hidden
        self.embed = BothWays(nn.GRU, dim, given.hidden)
        self.align = nn.Linear(width, width, bias=False)
        self.align_bias = nn.Parameter(torch.ones(width))
        self.compare = nn.GRU(COMPARISONS[given.compare] or width, given.relation, batch_first=True)
        self.out = nn.Linear(given.relation, 1)
        self.words = None if inputs.word_dim is None else nn.Linear(inputs.word_dim, width)
        self.aligned = AlignedStart() if given.start else None
        self.cosine = CosineStart() if given.start and inputs.word_dim else None
        self.stretch = dim**0.5 if given.start else 1.0  # unit features have entries of about 1 / sqrt(D)
        if given.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)
        words = inputs.word_dim or 1
        self.register_buffer("word_map", torch.zeros(words, dim))
        self.register_buffer("word_offset", torch.zeros(2, max(words, dim)))

    def fit_base(self, base: FeatureBank) -> None:
        """Ridge regression from the base classes' words to their mean features: the start of the zero-shot rule."""
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
        """Logits: log-odds of the mean relation score over a class's supports."""
        pairs, shown, asked = self.relations(episodes)
        weight = shown[:, None].to(pairs.dtype)
        score = (pairs.sigmoid() * weight).sum(-1) / weight.sum(-1).clamp(min=1)
        single_support = pairs.shape[-1] == 1
        logits = pairs.squeeze(-1) if single_support else torch.logit(score, eps=1e-6)
        return neutral(logits, asked, shown.any(-1))

    def loss(self, episodes: Episodes) -> Losses:
        """Binary cross-entropy of the pairs: mean over those of one class plus mean over the others."""
        pairs, shown, asked = self.relations(episodes)
        hot, valid = targets(episodes, pairs.dtype)
        there = ((valid & asked)[:, :, None, None] & shown[:, None]).expand(pairs.shape)
        like = there & (hot[..., None] > 0)
        unlike = there & (hot[..., None] == 0)
        positive = _mean_where(F.softplus(-pairs), like)
        negative = _mean_where(F.softplus(pairs), unlike)
        return Losses(positive + negative, {"positive": positive, "negative": negative})

    def relations(self, episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
        """Scores before the sigmoid of all pairs [B, Q, N, K]; supports there [B, N, K]; queries there [B, Q].

        Without supports the class's words stand in for one support of one segment.
        """
        if episodes.shots == 0:
            return self._zero_shot(episodes)
        support, query = single(episodes)
        s, q = self._segments(support), self._segments(query)
        ways, shots = support.present.shape[1:]
        score = self._pairs(s.flatten(1, 2), support.length.flatten(1, 2), q, query.length)
        score = score.unflatten(-1, (ways, shots))
        if self.aligned is not None:
            score = score + self.aligned(query, support)
        return score, support.present, query.present

    def _zero_shot(self, episodes: Episodes) -> tuple[Tensor, Tensor, Tensor]:
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
        return score[..., None], one[..., None] > 0, query.present

    def _segments(self, stream: Stream) -> Tensor:
        """Embedded segments [..., T, 2H]; zero beyond a sequence's length."""
        lead, (steps, dim) = stream.length.shape, stream.x.shape[-2:]
        x = stream.x.to(work_dtype(stream.x.dtype, self)).reshape(-1, steps, dim) * self.stretch
        length = stream.length.reshape(-1)
        run = torch.full_like(length, steps) if self.settings.padded else length
        out = torch.cat(self.embed(x, run), -1).view(*lead, steps, -1)
        return out * stream.mask()[..., None].to(out.dtype)

    def _pairs(self, s: Tensor, s_length: Tensor, q: Tensor, q_length: Tensor) -> Tensor:
        """Scores [B, Q, M] of supports s [B, M, Ts, C] and queries q [B, Q, Tq, C]."""
        s_there = torch.arange(s.shape[2], device=s.device) < s_length[..., None]
        q_there = torch.arange(q.shape[2], device=q.device) < q_length[..., None]
        affinity = torch.einsum("bmjc,bqic->bqmij", self.align(s) + self.align_bias, q)
        both = s_there[:, None, :, None, :] & q_there[:, :, None, :, None]
        axis = -1 if self.settings.align == "support" else -2
        weight = torch.softmax(affinity.masked_fill(~both, -1e4), axis) * both.to(s.dtype)
        aligned = torch.einsum("bqmij,bmjc->bqmic", weight, s)
        compared = self._compare(q[:, :, None], aligned) * q_there[:, :, None, :, None].to(s.dtype)
        batch, queries, supports, steps, width = compared.shape
        length = q_length[:, :, None].expand(-1, -1, supports)
        if self.settings.padded:
            length = q_length.amax().expand_as(length)
        states = self.compare(compared.reshape(-1, steps, width))[0]
        return self.out(last(states, length.reshape(-1))).view(batch, queries, supports)

    def _compare(self, q: Tensor, aligned: Tensor) -> Tensor:
        """Comparison of each query segment [B, Q, 1, T, C] with what it is aligned to [B, Q, M, T, C]."""
        if self.settings.compare == "mult":
            return q * aligned
        if self.settings.compare == "subt":
            return q - aligned
        # The square root's slope at zero is infinite: padding and identical segments stay finite with the clamp.
        apart = (q - aligned).square().sum(-1).clamp(min=1e-16).sqrt()
        return torch.stack([F.cosine_similarity(q, aligned, dim=-1), apart], -1)

    def pool_shots(self, pair: Tensor) -> Tensor:
        """Log-odds of the mean relation score over a class's supports."""
        return torch.logit(pair.sigmoid().mean(-1), eps=1e-6)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        steps = self.inputs.one()[1]
        width = 2 * self.settings.hidden + 2 * self.settings.relation + 2 * steps
        return 4 * queries * ways * max(shots, 1) * steps * width


def _mean_where(x: Tensor, mask: Tensor) -> Tensor:
    return (x * mask.to(x.dtype)).sum() / mask.sum().clamp(min=1)
