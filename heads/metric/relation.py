"""Relation Network: Learning to Compare: Relation Network for Few-Shot Learning (Sung et al., CVPR 2018).

The supports of a class are summed, laid beside a query, and a small network judges how well the two relate; its
sigmoid is regressed to 1 for the true class and 0 for the others. On maps the network is the published one
(``side``); on vectors it is our adaptation: one hidden layer over [class || query]. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import relation_mse
from ..parts.maps import max_pool
from ..parts.starts import CosineStart
from ..parts.task import Task, pooled_task
from ..parts.task_norm import TaskNorm
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, Recipe, Settings, Share


@dataclass(frozen=True)
class RelationSettings(Settings):
    """The Relation Network's settings."""

    side: CountOrNone = 0
    """The side of the square maps into which features are folded (D = channels * side^2), for the published network;
    0: features are vectors."""
    hidden: CountOrNone = 0
    """The units of the hidden layer; 0: 8 on maps, as published, and 64 on vectors."""
    filters: Count = 64
    """The filters of the network on maps."""
    padding: CountOrNone = 1
    """The padding of the network on maps: 0 for miniImageNet's maps of side 19, 1 for Omniglot's of side 5."""
    pool: Literal["sum", "mean"] = "sum"
    """How the supports of a class become one: their sum, or their mean."""
    momentum: Share = 1.0
    """The momentum of the running statistics; 1 as published: they are those of the last step."""
    batch_statistics: bool = False
    """Normalise by the test task's own queries, as the released scripts do; the head is then transductive."""
    start: bool = True
    """On vectors, add the learned relation, whose last layer begins at zero, to a scaled cosine: a relation learned
    from nothing does not reach the training-free rule on a few base classes."""


class Relation(Head[RelationSettings]):
    Settings = RelationSettings
    recipe = Recipe(steps=600, rate=1e-3, clip_norm=0.5, mix=0.5)
    judge: VectorJudge | MapJudge

    def __init__(self, inputs: Inputs, settings: RelationSettings) -> None:
        super().__init__(inputs, settings)
        dim, side = inputs.one()[2], settings.side
        self.cosine: CosineStart | None = None
        if side:
            if dim % side**2:
                raise UsageError(f"Features of width {dim} cannot be folded into maps of side {side}.")
            self.judge = MapJudge(dim // side**2, settings)
        else:
            self.judge = VectorJudge(dim, settings)
            self.cosine = CosineStart() if settings.start else None

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: relation scores before their sigmoid."""
        task = pooled_task(episodes, self)
        return neutral(self.relations(task), task.query_present, task.class_present)

    def loss(self, episodes: Episodes) -> Losses:
        """The mean squared error between the relation scores and the one-hot labels."""
        value = relation_mse(self(episodes), episodes)
        return Losses(value, {"mse": value})

    def relations(self, task: Task) -> Tensor:
        """How the queries relate to the classes, [B, Q, N], before the sigmoid."""
        total = task.support.sum(2)  # absent supports are zero
        if self.settings.pool == "mean":
            total = task.means()
        score = self.judge(total, task.query)
        return score if self.cosine is None else score + self.cosine(task.query, total)

    def shortcuts(self) -> Iterator[Shortcut]:
        """On vectors each clip passes the first layer once for all episodes, and cosines are read off."""
        if isinstance(self.judge, VectorJudge) and not self.settings.batch_statistics:
            yield FromGram(scorer=partial(self._scorer, self.judge))

    def _scorer(
        self, judge: VectorJudge, gram: Tensor, x: Tensor, bank: FeatureBank
    ) -> Callable[[Products], Tensor]:
        """Logits of products, with what the judge's first layer makes of every clip x [n, D]."""
        of_class, of_query = judge.halves(x.to(judge.out.weight.dtype))

        def logits(products: Products) -> Tensor:
            shots = 1 if self.settings.pool == "sum" else products.support.shape[2]
            score = judge.joined(of_class[products.support].sum(2) / shots, of_query[products.query])
            return score if self.cosine is None else score + self.cosine.logits_of(products.cosine_to_mean())

        return logits


class VectorJudge(nn.Module):
    """Linear(2D -> hidden), batch norm, ReLU and Linear(hidden -> 1) over [class || query].

    The first layer is two halves, applied once a class and once a query.
    """

    def __init__(self, dim: int, settings: RelationSettings) -> None:
        super().__init__()
        hidden = settings.hidden or 64
        self.of_class = nn.Linear(dim, hidden)
        self.of_query = nn.Linear(dim, hidden, bias=False)
        self.norm = TaskNorm(hidden, settings.momentum, batch_statistics=settings.batch_statistics)
        self.out = nn.Linear(hidden, 1)
        self.stretch = dim**0.5  # unit features have entries of about 1 / sqrt(D)
        if settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What clips [n, D] add to the hidden layer as supports and as queries, [n, hidden], in evaluation."""
        scale, shift = self.norm.affine()
        of_query = (
            F.linear(x * self.stretch, self.of_query.weight) * scale + self.of_class.bias * scale + shift
        )
        return F.linear(x * self.stretch, self.of_class.weight) * scale, of_query

    def joined(self, of_class: Tensor, of_query: Tensor) -> Tensor:
        """Scores [B, Q, N] of halves [B, N, hidden] and [B, Q, hidden]."""
        hidden = (of_query[:, :, None] + of_class[:, None]).relu_()
        return (hidden @ self.out.weight[0]) + self.out.bias

    def forward(self, total: Tensor, query: Tensor) -> Tensor:
        """Scores [B, Q, N] of pooled supports [B, N, D] and queries [B, Q, D]."""
        pair = self.of_query(query * self.stretch)[:, :, None] + self.of_class(total * self.stretch)[:, None]
        score: Tensor = self.out(F.relu(self.norm(pair.flatten(1, 2))))
        return score.view(pair.shape[:3])


class MapJudge(nn.Module):
    """The published network: two convolution blocks and two linear layers over [class || query]."""

    def __init__(self, channels: int, settings: RelationSettings) -> None:
        super().__init__()
        self.side = settings.side
        self.blocks = nn.ModuleList(MapBlock(width, settings) for width in (2 * channels, settings.filters))
        left = settings.side
        for _ in self.blocks:
            left = (left + 2 * settings.padding - 2) // 2
        if left < 1:
            raise UsageError(
                f"Maps of side {settings.side} are too small for two blocks with padding {settings.padding}."
            )
        self.hidden = nn.Linear(settings.filters * left**2, settings.hidden or 8)
        self.out = nn.Linear(settings.hidden or 8, 1)

    def forward(self, total: Tensor, query: Tensor) -> Tensor:
        """Scores [B, Q, N] of pooled supports [B, N, D] and queries [B, Q, D], folded into maps."""
        ways, queries = total.shape[1], query.shape[1]
        total, query = (t.unflatten(-1, (-1, self.side, self.side)) for t in (total, query))
        shape = (-1, queries, ways, -1, -1, -1)
        pair = torch.cat([total[:, None].expand(shape), query[:, :, None].expand(shape)], 3).flatten(1, 2)
        for block in self.blocks:
            pair = block(pair)
        score: Tensor = self.out(F.relu(self.hidden(pair.flatten(2))))
        return score.view(-1, queries, ways)


class MapBlock(nn.Module):
    """A 3 x 3 convolution, batch norm inside a task, ReLU and 2 x 2 maxima."""

    def __init__(self, width: int, settings: RelationSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, settings.filters, 3, padding=settings.padding)
        self.norm = TaskNorm(settings.filters, settings.momentum, batch_statistics=settings.batch_statistics)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, P, C, H, W] of P pairs a task as maps [B, P, filters, H', W']."""
        y = self.norm(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return max_pool(F.relu(y))
