"""GNN: Few-Shot Learning with Graph Neural Networks (Garcia and Bruna, ICLR 2018).

Supports and one query are the nodes of a graph; a node is its embedding and its one-hot label (the query's is zero).
Twice, an adjacency learned from |x_i - x_j| mixes neighbours and the mixture is appended to the node; a last such layer
reads the query's class off. One graph a query: inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..episodes.batch import Episodes
from ..errors import UsageError
from .base import Inputs, Recipe
from .graph import SLOPE, Embedding, GraphHead, GraphSettings, Metric, Pointwise, check_ways, over_rows
from .parts import flat_support, neutral, single, squared_distances

FAR = 1e8  # taken off the adjacency's logit of a node with itself, and with an absent node
BLOCKS = 2


@dataclass(frozen=True)
class GNNSettings(GraphSettings):
    """width: nf; a block appends width / 2 numbers to each node (published: 96).

    variant: "mini" (the released network for mini-ImageNet) or "omniglot" (adjacency widths follow the size of their
        input, batch norm on the output, dropout in the last adjacency).
    output_scale: with ``metric``, the start of the logits: this times the adjacency's vote.
    """

    width: int = 48
    variant: str = "mini"
    output_scale: float = 8.0


class GNN(GraphHead):
    settings_class = GNNSettings
    recipe = Recipe(steps=400, tasks=4, query=5, rate=1e-3, weight_decay=1e-6, decay_every=200, mix=0.5)
    position_tied = True

    def __init__(self, inputs: Inputs, settings: GNNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own: GNNSettings = self.settings
        if own.variant not in ("mini", "omniglot"):
            raise UsageError(f"variant={own.variant!r} is not known; use mini or omniglot.")
        _, _, dim = inputs.one()
        self.embedding = Embedding(dim, own)
        first = self.embedding.width + inputs.way
        sizes = [first + i * (own.width // 2) for i in range(BLOCKS + 1)]
        self.adjacency = nn.ModuleList(self._adjacency(i, sizes) for i in range(BLOCKS + 1))
        self.mix = nn.ModuleList(nn.Linear(2 * size, own.width // 2) for size in sizes[:BLOCKS])
        self.norm = nn.ModuleList(nn.BatchNorm1d(own.width // 2) for _ in range(BLOCKS))
        self.out = nn.Linear(2 * sizes[BLOCKS], inputs.way)
        self.out_norm = nn.BatchNorm1d(inputs.way) if own.variant == "omniglot" else None
        self.metric = Metric(own.metric_scale, own.smooth) if own.metric else None
        if own.metric:
            self._start_training_free(sizes[BLOCKS])

    def _adjacency(self, block: int, sizes: list[int]) -> Pointwise:
        if self.settings.variant == "mini":
            nf = self.settings.width
            return Pointwise(sizes[block], [2 * nf, 2 * nf, nf, nf], bias=True, out=1)
        last = block == BLOCKS
        base = sizes[block - 1] if last else sizes[block]
        widths = [2 * base, int(1.5 * base), base, base]
        drop = [0.3] if last else []
        return Pointwise(sizes[block], widths, bias=True, out=1, drop=drop, whole_channels=False)

    def _start_training_free(self, size: int) -> None:
        """At first the adjacency is a softmax over distances, and the output its vote over the supports' labels."""
        for net in self.adjacency:
            assert isinstance(net, Pointwise)
            net.silence()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            for n in range(self.inputs.way):
                self.out.weight[n, size + self.embedding.width + n] = self.settings.output_scale

    def forward(self, episodes: Episodes) -> Tensor:
        check_ways(episodes, self.inputs.way, "GNN")
        support, query = single(episodes)
        s, present = flat_support(support)
        dtype = self.out.weight.dtype
        s, q = s.to(dtype), query.pooled().to(dtype)
        label = self._labels(episodes, present).to(dtype)
        logits = self.graphs(q, s, label, query.present, present)[..., : episodes.ways]
        return neutral(logits, query.present, support.present.any(2))

    def _labels(self, episodes: Episodes, present: Tensor) -> Tensor:
        """One-hot labels of the supports [B, NK, way]; zero for absent ones."""
        ways = torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)
        return F.one_hot(ways, self.inputs.way) * present[..., None]

    def graphs(
        self, query: Tensor, support: Tensor, label: Tensor, query_present: Tensor, support_present: Tensor
    ) -> Tensor:
        """Logits [B, Q, way] of query [B, Q, D], each in a graph of its own with support [B, S, D], label [B, S, way]."""
        batch, queries, _ = query.shape
        x = torch.cat([self._nodes(query, torch.zeros_like(label[:, :1]).expand(-1, queries, -1)).unsqueeze(2),
                       self._nodes(support, label)[:, None].expand(-1, queries, -1, -1)], 2).flatten(0, 1)  # fmt: skip
        there = torch.cat(
            [query_present.unsqueeze(2), support_present[:, None].expand(-1, queries, -1)], 2
        ).flatten(0, 1)
        prior = self._prior(self.plain(query), self.plain(support)) if self.metric is not None else None
        x = self._blocks(x, there, prior)
        mixed = self.out(torch.cat([x, self._mixed(BLOCKS, x, there, prior)], -1))
        if self.out_norm is not None:
            mixed = over_rows(self.out_norm, mixed)
        return mixed[:, 0].unflatten(0, (batch, queries))

    def _nodes(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.cat([self.embedding(x), label], -1)

    def _blocks(self, x: Tensor, there: Tensor, prior: Tensor | None) -> Tensor:
        for i in range(BLOCKS):
            mixed = self.mix[i](torch.cat([x, self._mixed(i, x, there, prior)], -1))
            x = torch.cat([x, F.leaky_relu(over_rows(self.norm[i], mixed), SLOPE)], -1)
        return x

    def _mixed(self, block: int, x: Tensor, there: Tensor, prior: Tensor | None) -> Tensor:
        """W x, W the softmax over the other present nodes of the learned adjacency."""
        logit = _pairs(self.adjacency[block], x)
        if prior is not None:
            logit = logit + prior
        own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        logit = logit - FAR * (own | ~there[:, None, :]).to(x.dtype)
        return torch.softmax(logit, -1) @ x

    def _prior(self, query: Tensor, support: Tensor) -> Tensor:
        """The metric term of all pairs of each query's graph [B*Q, 1+S, 1+S]."""
        assert self.metric is not None
        across = self.metric(squared_distances(query, support))
        among = self.metric(squared_distances(support, support))
        batch, queries, count = across.shape
        first = torch.cat([torch.zeros_like(across[..., :1]), across], -1).unsqueeze(2)
        rest = torch.cat([across.unsqueeze(-1), among[:, None].expand(batch, queries, count, count)], -1)
        return torch.cat([first, rest], 2).flatten(0, 1)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return queries * (ways * shots + 1) ** 2 * self.settings.width * 8


def _pairs(net: nn.Module, x: Tensor) -> Tensor:
    from .graph import pairwise

    assert isinstance(net, Pointwise)
    return pairwise(net, x)
