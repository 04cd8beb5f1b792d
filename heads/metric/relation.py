"""Relation Network: Learning to Compare (Sung et al., CVPR 2018).

The supports of a class are summed, laid beside a query, and a small network judges how well the two relate; its
sigmoid is regressed to 1 for the true class and 0 for the others. On maps the network is the published one
(``side``); on vectors it is our adaptation: one hidden layer over [class || query]. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import relation_mse
from ..parts.maps import max_pool
from ..parts.starts import CosineStart
from ..parts.task import Task, pooled_task
from ..parts.task_norm import TaskNorm
from ..scoring.gram import to_sums
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class RelationSettings(Settings):
    """side: of square maps that features are folded into (D = channels * side^2), for the published network; 0: none.

    hidden: units of the hidden layer (0: 8 on maps as published, 64 on vectors). filters, padding: of the map network
    (padding 0 for miniImageNet's 19x19 maps, 1 for Omniglot's 5x5). pool: "sum" of the supports, or "mean".
    momentum: of the running statistics (1 as published: those of the last step).
    batch_statistics: normalise by the test task's own queries, as the released scripts do (then transductive).
    start: vectors only: add the learned relation to a scaled cosine, with a last layer that starts at zero; a relation
    learned from nothing does not reach the training-free rule on a few base classes.
    """

    side: int = 0
    hidden: int = 0
    filters: int = 64
    padding: int = 1
    pool: str = "sum"
    momentum: float = 1.0
    batch_statistics: bool = False
    start: bool = True


class Relation(Head):
    settings_class = RelationSettings
    light = True
    recipe = Recipe(steps=600, rate=1e-3, clip_norm=0.5, mix=0.5)

    def __init__(self, inputs: Inputs, settings: RelationSettings | None = None) -> None:
        super().__init__(inputs, settings)
        given, dim = self.settings, inputs.one()[2]
        if given.pool not in ("sum", "mean"):
            raise UsageError(f"pool={given.pool!r} is not known; use sum or mean.")
        self.cosine: CosineStart | None = None
        if given.side:
            if dim % given.side**2:
                raise UsageError(f"Features of width {dim} cannot be folded into maps of side {given.side}.")
            self.judge: nn.Module = MapJudge(dim // given.side**2, given)
        else:
            self.inner_products = not given.batch_statistics
            self.judge = VectorJudge(dim, given)
            self.cosine = CosineStart() if given.start else None

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: relation scores before their sigmoid."""
        task = pooled_task(episodes, self)
        return neutral(self.relations(task), task.asked, task.known)

    def loss(self, episodes: Episodes) -> Losses:
        """Mean squared error between the relation scores and the one-hot labels."""
        value = relation_mse(self(episodes), episodes)
        return Losses(value, {"mse": value})

    def relations(self, task: Task) -> Tensor:
        """[B, Q, N]."""
        total = task.support.sum(2)  # absent supports are zero
        if self.settings.pool == "mean":
            total = task.means()
        score = self.judge(total, task.query)
        return score if self.cosine is None else score + self.cosine(task.query, total)

    def gram_scorer(self, gram: Tensor, bank: FeatureBank) -> Callable[[EpisodeIndex], Tensor]:
        """On vectors: each clip passes the first layer once for all episodes; cosines are read off."""
        x, judge = self.points(bank), self.judge
        assert x is not None
        assert isinstance(judge, VectorJudge)
        with torch.no_grad():
            of_class, of_query = judge.halves(x.to(judge.out.weight.dtype))

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = index.support.to(bank.device), index.query.to(bank.device)
            shots = 1 if self.settings.pool == "sum" else support.shape[2]
            value = judge.joined(of_class[support].sum(2) / shots, of_query[query])
            return value if self.cosine is None else value + self.cosine.of_cosines(to_sums(gram, index))

        return score

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        given = self.settings
        width = 3 * given.filters * given.side**2 if given.side else 3 * (given.hidden or 64)
        return 4 * ways * queries * width


class VectorJudge(nn.Module):
    """Linear(2D -> hidden), batch norm, relu, Linear(hidden -> 1) over [class || query]."""

    def __init__(self, dim: int, given: RelationSettings) -> None:
        super().__init__()
        hidden = given.hidden or 64
        self.of_class = nn.Linear(
            dim, hidden
        )  # the two halves of one layer, applied once a class and once a query
        self.of_query = nn.Linear(dim, hidden, bias=False)
        self.norm = TaskNorm(hidden, given.momentum, given.batch_statistics)
        self.out = nn.Linear(hidden, 1)
        self.stretch = dim**0.5  # unit features have entries of about 1 / sqrt(D)
        if given.start:
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
        pair = self.of_query(query * self.stretch)[:, :, None] + self.of_class(total * self.stretch)[:, None]
        hidden = F.relu(self.norm(pair.flatten(1, 2)))
        return self.out(hidden).view(pair.shape[:3])


class MapJudge(nn.Module):
    """The published network: two blocks of conv3x3, batch norm, relu, max-pool, then two linear layers."""

    def __init__(self, channels: int, given: RelationSettings) -> None:
        super().__init__()
        self.side = given.side
        self.blocks = nn.ModuleList(MapBlock(width, given) for width in (2 * channels, given.filters))
        left = given.side
        for _ in self.blocks:
            left = (left + 2 * given.padding - 2) // 2
        if left < 1:
            raise UsageError(
                f"Maps of side {given.side} are too small for two blocks with padding {given.padding}."
            )
        self.hidden = nn.Linear(given.filters * left**2, given.hidden or 8)
        self.out = nn.Linear(given.hidden or 8, 1)

    def forward(self, total: Tensor, query: Tensor) -> Tensor:
        ways, queries = total.shape[1], query.shape[1]
        total, query = (t.unflatten(-1, (-1, self.side, self.side)) for t in (total, query))
        shape = (-1, queries, ways, -1, -1, -1)
        pair = torch.cat([total[:, None].expand(shape), query[:, :, None].expand(shape)], 3).flatten(1, 2)
        for block in self.blocks:
            pair = block(pair)
        return self.out(F.relu(self.hidden(pair.flatten(2)))).view(-1, queries, ways)


class MapBlock(nn.Module):
    """conv3x3, batch norm a task, relu, max-pool 2."""

    def __init__(self, width: int, given: RelationSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, given.filters, 3, padding=given.padding)
        self.norm = TaskNorm(given.filters, given.momentum, given.batch_statistics)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
        return max_pool(F.relu(y))
