"""Chamfer++: Rethinking Matching-based Few-shot Action Recognition (Bertrand, Kalantidis and Tolias, SCIA 2023).

Clips are compared by the cosines of all pairs of their steps, or of ordered tuples of steps, and a matching makes one
number of them: each tuple's best partner in the other clip (Chamfer), their mean, their maximum, their diagonal, a
learned weighting, an ordered alignment. Chamfer++ lays the supports of a class side by side and matches tuples of three
steps; no matching but the linear one and ViSiL learns anything. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import comb
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ...errors import UsageError
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.clip_matching import (
    aligned_match,
    best_ordered,
    chamfer_match,
    diagonal_match,
    masked_last_mean,
    max_match,
    mean_match,
)
from ..parts.context import TaskContext
from ..parts.steps import at_least, resample, widened
from ..parts.tensors import class_means
from ..parts.visil import MIN_STEPS, ViSiL
from ..scoring.pairs import FromPairs, as_classes, as_queries
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, NonNegative, Positive, Recipe, Settings

Matching = Literal[
    "chamfer++", "chamfer", "chamfer-query", "chamfer-support", "mean", "max", "diagonal", "linear", "otam",
    "visil",
]  # fmt: skip


@dataclass(frozen=True)
class ChamferSettings(Settings):
    """The settings of the matchings; the default is Chamfer++ on the features as they are, which trains nothing."""

    matching: Matching = "chamfer++"
    """How one number is made of the similarities of two clips. Chamfer: both directed means of the best similarities,
    averaged; query and support are one of them. Chamfer++: Chamfer over triples and over a class's supports together.
    Visil: Chamfer after a small convolutional network. Linear: learned weights of the steps' pairs."""
    size: CountOrNone = 0
    """The steps of a tuple; 0 for those of the paper, three for chamfer++ and one for the others."""
    supports: Literal["auto", "joint", "separate"] = "auto"
    """Joint: the supports of a class are one long clip; separate: each is matched and the mean counts; auto: as in the
    paper, joint for chamfer++."""
    project: CountOrNone = 0
    """The width of a learned linear map of the tuples with a layer norm behind it (the paper's is 1152); 0 for none."""
    epsilon: NonNegative = 0.0
    """What is added to the denominator |x||z| of the cosine (released: 0.01)."""
    summed: bool = False
    """The mean matching adds up over support steps instead of averaging, as released."""
    gamma: NonNegative = 0.1
    """The softness of the alignment's minimum."""
    scale: Positive = 10.0
    """The factor of the logits."""
    start: bool = True
    """Learned matchings begin as one without weights: linear as the diagonal, ViSiL as the best of each block of four
    by four; false: at random."""

    @property
    def tuple_size(self) -> int:
        """The steps of a tuple."""
        return self.size or (3 if self.matching == "chamfer++" else 1)

    @property
    def adds_weights(self) -> bool:
        return self.matching in ("linear", "visil") or self.project > 0

    @property
    def joint(self) -> bool:
        """Whether the supports of a class are matched together."""
        return self.supports == "joint" or (self.supports == "auto" and self.matching == "chamfer++")


class Tuples(NamedTuple):
    """The tuples of clips [...], P a clip.

    x: [..., P, d], projected; without a projection the unit steps [..., T, D] that make them up. valid: bool [..., P].
    """

    x: Tensor
    valid: Tensor


class Chamfer(EncodingHead[ChamferSettings, Tuples, Tuples]):
    Settings = ChamferSettings
    recipe = Recipe(steps=400, query=5, optimiser="sgd", momentum=0.0, rate=1e-2, clip_norm=1000.0)

    def __init__(self, inputs: Inputs, settings: ChamferSettings) -> None:
        super().__init__(inputs, settings)
        _check(settings)
        _, steps, dim = inputs.one()
        size, width, matching = settings.tuple_size, settings.project, settings.matching
        self.steps = max(steps, size)
        self.projection = nn.Sequential(nn.Linear(size * dim, width), nn.LayerNorm(width)) if width else None
        tuples = comb(self.steps, size)
        self.weights = pair_weights(tuples, start=settings.start) if matching == "linear" else None
        self.visil = ViSiL(start=settings.start) if matching == "visil" else None
        self.temperature = nn.Parameter(torch.ones(1)) if settings.adds_weights else None

    def encode(self, clips: Stream) -> Tuples:
        """The tuples of clips [..., T, D]; a clip with fewer steps than a tuple has holds its last one."""
        size, matching = self.settings.tuple_size, self.settings.matching
        clips = at_least(widened(clips), MIN_STEPS if matching == "visil" else size)
        if matching in ("diagonal", "linear") or (matching == "otam" and size > 1):
            clips = resample(clips, self.steps)
        place = _places(clips.x.shape[-2], size, clips.x.device)
        valid = place[:, -1] < clips.length[..., None]
        if self.projection is None:
            return Tuples(F.normalize(clips.x, dim=-1), valid)
        weight = next(self.projection.parameters())
        x = self.projection(clips.x[..., place, :].flatten(-2).to(weight.dtype))
        return Tuples(x.float() if x.dtype in (torch.bfloat16, torch.float16) else x, valid)

    def compare(self, support: Tuples, query: Tuples, context: TaskContext) -> Tensor:
        rows, columns = query.valid[:, :, None], support.valid[:, None]
        if self.by_steps:
            forth, back = (part.unflatten(2, support.valid.shape[1:3]) for part in self.best(support, query))
            return self._logits(self._pooled_best(forth, back, rows, columns, context))
        similarity = self.similarity(support, query)
        if self.settings.joint:
            aside = similarity.transpose(-3, -2).flatten(-2)  # [B, Q, N, P, K*P']
            return self._logits(self.score(aside, rows, columns.flatten(-2)))
        each = self.score(similarity, rows[:, :, None], columns)  # [B, Q, N, K]
        return self._logits(_mean_of_supports(each, context))

    @property
    def by_steps(self) -> bool:
        """Whether each tuple's best partner is found step by step, without the similarities of the tuples.

        Tuples of unit steps are as similar as their steps are on average.
        """
        chamfer = self.settings.matching.startswith("chamfer")
        return chamfer and self.projection is None and self.settings.tuple_size > 1

    def best(self, support: Tuples, query: Tuples) -> tuple[Tensor, Tensor]:
        """How alike each tuple and its best partner are: [B, Q, N*K, P] for a query's, [B, Q, N*K, P'] for a support's.

        Steps go before pairs of clips, so that each operation runs over all pairs of all tasks.
        """
        s, q, size = support.x.flatten(1, 2), query.x, self.settings.tuple_size
        product = q.transpose(1, 2).flatten(1, 2) @ s.transpose(1, 2).flatten(1, 2).transpose(1, 2)
        shaped = product.unflatten(1, (q.shape[2], q.shape[1])).unflatten(-1, (s.shape[2], s.shape[1]))
        cosines = shaped.permute(1, 3, 0, 2, 4).contiguous() / (
            size + self.settings.epsilon
        )  # [T, T', B, Q, N*K]
        of_q, of_s = (_steps_of(t.valid, x, size) for t, x in ((query, q), (support, support.x)))
        of_q, of_s = of_q.movedim(-1, 0)[..., None], of_s.flatten(1, 2).movedim(-1, 0)[:, :, None]
        forth = best_ordered(_masked(cosines, of_s[None]), size)
        back = best_ordered(_masked(cosines, of_q[:, None]).transpose(0, 1), size)
        return forth.movedim(0, -1), back.movedim(0, -1)

    def _pooled_best(
        self, forth: Tensor, back: Tensor, rows: Tensor, columns: Tensor, context: TaskContext
    ) -> Tensor:
        """Scores [B, Q, N] from the best of each query tuple [B, Q, N, K, P] and support tuple [B, Q, N, K, P']."""
        joint = self.settings.joint
        if joint:
            present = context.support_present[:, None, :, :, None]
            forth = forth.masked_fill(~present, -torch.inf).amax(3)
            forth = torch.where(context.class_present[:, None, :, None], forth, 0.0)
            back, columns = back.flatten(-2), columns.flatten(-2)
        else:
            rows = rows[:, :, :, None]
        of_rows, of_columns = self._sides()
        score = of_rows * masked_last_mean(forth, rows) + of_columns * masked_last_mean(back, columns)
        return score if joint else _mean_of_supports(score, context)

    def similarity(self, support: Tuples, query: Tuples) -> Tensor:
        """The cosines [B, Q, N, K, P, P'] of all pairs of tuples of queries [B, Q] and supports [B, N, K]."""
        s, q, size = support.x.flatten(1, 2), query.x, self.settings.tuple_size
        product = (q.flatten(1, 2) @ s.flatten(1, 2).transpose(1, 2)).unflatten(1, q.shape[1:3])
        product = product.unflatten(-1, s.shape[1:3]).transpose(2, 3)  # [B, Q, N*K, T, T']
        if self.projection is None:
            of_q, of_s = (_places(x.shape[-2], size, x.device) for x in (q, s))
            parts = (
                [product[..., of_q[:, i, None], of_s[:, i]] for i in range(size)] if size > 1 else [product]
            )
            cosines = sum(parts[1:], parts[0]) / (size + self.settings.epsilon)
        else:
            norms, epsilon = (
                q.norm(dim=-1)[:, :, None, :, None] * s.norm(dim=-1)[:, None, :, None],
                self.settings.epsilon,
            )
            cosines = product / (norms + epsilon if epsilon else norms.clamp(min=1e-12))
        return cosines.unflatten(2, support.valid.shape[1:3])

    def score(self, similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """How alike clips are, [...], by similarities [..., I, J] of which rows [..., I] and columns [..., J] count."""
        matching = self.settings.matching
        if matching == "mean":
            return mean_match(similarity, rows, columns, summed=self.settings.summed)
        if matching == "max":
            return max_match(similarity, rows, columns)
        if matching == "diagonal":
            return diagonal_match(similarity)
        if matching == "otam":
            return aligned_match(similarity, rows, columns, self.settings.gamma)
        if self.weights is not None:
            return (similarity.flatten(-2) @ self.weights.weight[0].to(similarity.dtype)[:, None]).squeeze(-1)
        forth, back = (similarity, rows, columns), (similarity.transpose(-1, -2), columns, rows)
        if self.visil is not None:
            forth, back = self.visil(*forth), self.visil(*back)
        of_rows, of_columns = self._sides()
        return of_rows * chamfer_match(*forth) + of_columns * chamfer_match(*back)

    def _sides(self) -> tuple[float, float]:
        """How much the mean over the query's tuples and that over the support's count."""
        one_sided = {"chamfer-query": (1.0, 0.0), "chamfer-support": (0.0, 1.0)}
        return one_sided.get(self.settings.matching, (0.5, 0.5))

    def _logits(self, score: Tensor) -> Tensor:
        """The scaled scores of clips."""
        scaled = self.settings.scale * score
        return scaled if self.temperature is None else scaled * self.temperature.to(score.dtype)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each pair of clips is matched once, in both roles; separate supports count by the mean of their scores."""
        pool = None if self.settings.joint else lambda pairs: pairs.mean(-1)
        return (self.once_per_clip(), FromPairs(head=self, pool=pool, both_roles=self.both_roles))

    def both_roles(self, rows: Stream, columns: Stream) -> tuple[Tensor, Tensor]:
        """Logits [r, c] of clips [r, T, D] as queries against [c, T, D] as supports, and [c, r] the other way."""
        query, support = self.encode(as_queries(rows)), self.encode(as_classes(columns))
        first, second = query.valid[0, :, None], support.valid[0, None, :, 0]
        if self.by_steps:
            best = self.best(support, query)
            means = [masked_last_mean(x[0], valid) for x, valid in zip(best, (first, second))]
            sides = self._sides()
            forth, back = (a * means[0] + b * means[1] for a, b in (sides, sides[::-1]))
            return self._logits(forth), self._logits(back).T
        similarity = self.similarity(support, query)[0, :, :, 0]
        forth = self.score(similarity, first, second)
        back = self.score(similarity.transpose(-1, -2), second, first)
        return self._logits(forth), self._logits(back).T


def pair_weights(tuples: int, *, start: bool) -> nn.Linear:
    """The weights [1, P^2] of the pairs of two clips' tuples; with ``start`` they begin as the mean of the diagonal."""
    layer = nn.Linear(tuples * tuples, 1, bias=False)
    if start:
        layer.weight.data = torch.eye(tuples).flatten()[None] / tuples
    return layer


def _check(settings: ChamferSettings) -> None:
    """Raises UsageError for matchings that the paper's forms exclude."""
    if settings.joint and settings.matching in ("diagonal", "linear", "otam", "visil"):
        raise UsageError(
            f"matching={settings.matching} compares single supports; leave supports=joint out or take chamfer."
        )
    if settings.matching == "visil" and settings.tuple_size > 1:
        raise UsageError(
            f"matching=visil reads single steps; leave size={settings.size} out or take chamfer."
        )


def _mean_of_supports(score: Tensor, context: TaskContext) -> Tensor:
    """The mean [B, Q, N] of scores [B, Q, N, K] over the present supports."""
    return class_means(score.permute(0, 2, 3, 1), context.support_present)[0].transpose(1, 2)


def _steps_of(valid: Tensor, x: Tensor, size: int) -> Tensor:
    """Which steps of x [..., T, D] belong to a valid tuple, bool [..., T]; valid: bool [..., P]."""
    last = _places(x.shape[-2], size, x.device)[:, -1]
    length = torch.where(valid, last + 1, 0).amax(-1, keepdim=True)
    return torch.arange(x.shape[-2], device=x.device) < length


def _masked(cosines: Tensor, kept: Tensor) -> Tensor:
    """The cosines where they are kept, elsewhere a number far below any sum of them."""
    return cosines if bool(kept.all()) else cosines.masked_fill(~kept, -1e3)


@cache
def _places(steps: int, size: int, device: torch.device) -> Tensor:
    """The steps of all ordered tuples, int64 [P, size], in lexicographic order."""
    return torch.combinations(torch.arange(steps), size).view(-1, size).to(device)
