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

from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Inputs
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.tensors import check_ways, flat_support, single
from ..settings import Recipe
from .blocks import (
    SLOPE,
    Embedding,
    GraphHead,
    GraphSettings,
    Metric,
    Pointwise,
    over_rows,
    pairwise,
)

FAR = 1e8  # taken off the adjacency's logit of a node with itself, and with an absent node
BLOCKS = 2
PART_BYTES = 4 << 20


@dataclass(frozen=True)
class GNNSettings(GraphSettings):
    """width: nf; a block appends width / 2 numbers to each node (published: 96, for images).

    variant: "mini" (the released network for mini-ImageNet) or "omniglot" (adjacency widths follow the size of their
        input, batch norm on the output, dropout in the last adjacency).
    output_scale: with ``metric``, the start of the logits: this times the adjacency's vote.
    """

    width: int = 32
    metric_scale: float = 4.0
    variant: str = "mini"
    output_scale: float = 8.0


class GNN(GraphHead):
    settings_class = GNNSettings
    light = True
    recipe = Recipe(
        steps=100,
        tasks=2,
        query=4,
        rate=1e-4,
        weight_decay=1e-6,
        mix=1.0,
        evaluate_every=25,
        evaluate_episodes=200,
        patience=4,
    )
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
        for i in range(BLOCKS + 1):
            Pointwise.of(self.adjacency, i).silence()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            for n in range(self.inputs.way):
                self.out.weight[n, size + self.embedding.width + n] = self.settings.output_scale

    def forward(self, episodes: Episodes) -> Tensor:
        check_ways(episodes, self.inputs.way, "GNN")
        support, query = single(episodes)
        s, present = flat_support(support)
        dtype = self.dtype
        s, q = s.to(dtype), query.pooled().to(dtype)
        label = self._labels(episodes, present).to(dtype)
        part = self._queries_at_once(q.shape, s.shape[1])
        logits = [
            self.graphs(q[:, i : i + part], s, label, query.present[:, i : i + part], present)
            for i in range(0, max(q.shape[1], 1), part)
        ]
        return neutral(torch.cat(logits, 1)[..., : episodes.ways], query.present, support.present.any(2))

    def _queries_at_once(self, shape: torch.Size, supports: int) -> int:
        """Queries of every task whose graphs are built at once: pairs of nodes then fit the processor's cache.

        In training all of them, for the statistics of batch norm.
        """
        batch, queries, _ = shape
        pairs = (supports + 1) * (supports + 2) // 2
        graph = 4 * pairs * (self.embedding.width + self.inputs.way)
        return max(queries, 1) if self.training else max(1, PART_BYTES // max(batch * graph, 1))

    def _labels(self, episodes: Episodes, present: Tensor) -> Tensor:
        """One-hot labels of the supports [B, NK, way]; zero for absent ones."""
        ways = torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)
        return F.one_hot(ways, self.inputs.way) * present[..., None]

    def graphs(
        self, query: Tensor, support: Tensor, label: Tensor, query_present: Tensor, support_present: Tensor
    ) -> Tensor:
        """Logits [B, Q, way] of query [B, Q, D], each in its own graph with support [B, S, D], label [B, S, way]."""
        queries = query.shape[1]
        asker = self._nodes(query, torch.zeros_like(label[:, :1]).expand(-1, queries, -1))
        known = self._nodes(support, label)
        x = torch.cat([asker.unsqueeze(2), _each(known, queries)], 2).flatten(0, 1)
        there = torch.cat([query_present.unsqueeze(2), _each(support_present, queries)], 2).flatten(0, 1)
        prior = torch.zeros((), dtype=x.dtype, device=x.device)
        if self.metric is not None:
            prior = self._prior(self.plain(query), self.plain(support))
        logit = (
            self._shared_pairs(asker, known)
            if not self.training
            else pairwise(Pointwise.of(self.adjacency, 0), x)
        )
        for i in range(BLOCKS):
            logit = logit if i == 0 else pairwise(Pointwise.of(self.adjacency, i), x)
            mixed = self.mix[i](torch.cat([x, self._neighbours(logit + prior, x, there)], -1))
            x = torch.cat([x, F.leaky_relu(over_rows(self.norm[i], mixed), SLOPE)], -1)
        return self._read_out(x, prior, there).unflatten(0, (-1, queries))

    def _nodes(self, x: Tensor, label: Tensor) -> Tensor:
        return torch.cat([self.embedding(x), label], -1)

    def _shared_pairs(self, asker: Tensor, known: Tensor) -> Tensor:
        """The first adjacency [B*Q, 1+S, 1+S] in evaluation: pairs of supports are the same in all graphs of a task."""
        net = Pointwise.of(self.adjacency, 0)
        across = net((asker[:, :, None] - known[:, None]).abs()).squeeze(-1)
        return _assemble(across, pairwise(net, known))

    def _neighbours(self, logit: Tensor, x: Tensor, there: Tensor) -> Tensor:
        """W x, W the softmax of ``logit`` [G, R, n] of the first R nodes over the other present nodes."""
        own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)[: logit.shape[1]]
        far = FAR * (own | ~there[:, None, :]).to(x.dtype)
        return torch.softmax(logit - far, -1) @ x

    def _read_out(self, x: Tensor, prior: Tensor, there: Tensor) -> Tensor:
        """Outputs [G, way] of node 0. In evaluation only its own row is computed; batch norm trains on all."""
        if self.training:
            logit = pairwise(Pointwise.of(self.adjacency, BLOCKS), x) + prior
        else:
            row = self.adjacency[BLOCKS]((x[:, :1] - x).abs()).squeeze(-1)[:, None]
            logit = row + (prior[:, :1] if prior.ndim else prior)
        mixed = self.out(torch.cat([x[:, : logit.shape[1]], self._neighbours(logit, x, there)], -1))
        return (mixed if self.out_norm is None else over_rows(self.out_norm, mixed))[:, 0]

    def _prior(self, query: Tensor, support: Tensor) -> Tensor:
        """The metric term of all pairs of each query's graph [B*Q, 1+S, 1+S]."""
        assert self.metric is not None
        across, among = squared_distances(query, support), squared_distances(support, support)
        return _assemble(self.metric(across), self.metric(among))

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return queries * (ways * shots + 1) ** 2 * self.settings.width * 8


def _each(x: Tensor, queries: int) -> Tensor:
    """[B, ...] to [B, Q, ...], the same for every query."""
    return x[:, None].expand(-1, queries, *[-1] * (x.ndim - 1))


def _assemble(across: Tensor, among: Tensor) -> Tensor:
    """Pairs [B*Q, 1+S, 1+S] from query to support [B, Q, S] and between supports [B, S, S]; node 0 is the query."""
    corner = torch.zeros_like(across[..., :1])
    first = torch.cat([corner, across], -1).unsqueeze(2)
    rest = torch.cat([across.unsqueeze(-1), _each(among, across.shape[1])], -1)
    return torch.cat([first, rest], 2).flatten(0, 1)
