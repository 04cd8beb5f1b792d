"""GNN: Few-Shot Learning with Graph Neural Networks (Garcia and Bruna, ICLR 2018).

Supports and one query are the nodes of a graph; a node is its embedding and its one-hot label (the query's is zero).
Twice, an adjacency learned from |x_i - x_j| mixes neighbours and the mixture is appended to the node; a last such layer
reads the query's class off. One graph a query: inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ..head import Inputs
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.tensors import check_ways, flat_support, single, support_labels
from ..settings import Count, CountOrNone, NonNegative, Recipe
from .blocks import (
    LEAKY_SLOPE,
    DistanceTerm,
    Embedding,
    GraphHead,
    GraphSettings,
    Pointwise,
    over_rows,
    pair_values,
)
from .groups import GroupRelations, relations_of

NO_EDGE = (
    1e8  # This is taken off the adjacency's logit of a node with itself, and of one with an absent node.
)
BLOCKS = 2
PART_BYTES = 4 << 20  # The graphs that are built at once take about this much memory, a processor's cache.


@dataclass(frozen=True)
class GNNSettings(GraphSettings):
    """GNN's settings."""

    width: Count = 32
    """The width of the layers (96 in the paper, for images); a block appends half as many numbers to each node."""
    metric_scale: NonNegative = 4.0
    """Where the scale of the training-free term starts, for distances in units of the mean squared distance of two base
    clips."""
    variant: Literal["mini", "omniglot"] = "mini"
    """The released network for mini-ImageNet, or that for Omniglot: its adjacency widths follow the size of their
    input, its output has batch norm and its last adjacency dropout."""
    output_scale: float = 8.0
    """Where the logits start with ``metric``: this times the vote of the adjacency."""
    heads: CountOrNone = 0
    """The number of groups of channels that have an adjacency of their own beside the whole one, in the two blocks that
    append to nodes; 0 for the whole one alone, as published."""


class GNN(GraphHead[GNNSettings]):
    Settings = GNNSettings
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

    def __init__(self, inputs: Inputs, settings: GNNSettings) -> None:
        super().__init__(inputs, settings)
        self.embedding = Embedding(inputs.one()[2], settings)
        appended = settings.width // 2
        sizes = [self.embedding.width + inputs.way + i * appended for i in range(BLOCKS + 1)]
        self.adjacency_nets = [self._adjacency_net(i, sizes) for i in range(BLOCKS + 1)]
        self.adjacency = nn.ModuleList(self.adjacency_nets)
        kinds = 3 if settings.heads else 2
        self.mix = nn.ModuleList(nn.Linear(kinds * size, appended) for size in sizes[:BLOCKS])
        self.group_nets = [relations_of(size, settings.heads) for size in sizes[:BLOCKS]]
        self.groups = nn.ModuleList(groups for groups in self.group_nets if groups is not None)
        self.norm = nn.ModuleList(nn.BatchNorm1d(appended) for _ in range(BLOCKS))
        self.out = nn.Linear(2 * sizes[BLOCKS], inputs.way)
        self.out_norm = nn.BatchNorm1d(inputs.way) if settings.variant == "omniglot" else None
        self.metric = DistanceTerm(settings.metric_scale, settings.smooth) if settings.metric else None
        if settings.metric:
            self._start_training_free(sizes[BLOCKS])

    def _adjacency_net(self, block: int, sizes: list[int]) -> Pointwise:
        if self.settings.variant == "mini":
            width = self.settings.width
            return Pointwise(sizes[block], [2 * width, 2 * width, width, width], bias=True, out=1)
        last = block == BLOCKS
        base = sizes[block - 1] if last else sizes[block]
        widths, drop = [2 * base, int(1.5 * base), base, base], [0.3] if last else []
        return Pointwise(sizes[block], widths, bias=True, out=1, drop=drop, whole_channels=False)

    def _start_training_free(self, size: int) -> None:
        """At first the adjacency is a softmax over distances, and the output its vote over the supports' labels."""
        for net in self.adjacency_nets:
            net.zero_output()
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        with torch.no_grad():
            for n in range(self.inputs.way):
                self.out.weight[n, size + self.embedding.width + n] = self.settings.output_scale

    def forward(self, episodes: Episodes) -> Tensor:
        check_ways(episodes, self.inputs.way, "GNN")
        support, query = single(episodes)
        s, present = flat_support(support)
        s, q = s.to(self.dtype), query.pooled().to(self.dtype)
        label = (F.one_hot(support_labels(episodes), self.inputs.way) * present[..., None]).to(self.dtype)
        part = self._queries_at_once(q.shape, s.shape[1])
        logits = [
            self.graphs(
                query=q[:, i : i + part],
                support=s,
                label=label,
                query_present=query.present[:, i : i + part],
                support_present=present,
            )
            for i in range(0, max(q.shape[1], 1), part)
        ]
        return neutral(torch.cat(logits, 1)[..., : episodes.ways], query.present, support.present.any(2))

    def _queries_at_once(self, shape: torch.Size, supports: int) -> int:
        """How many queries of every task have their graphs built at once, so that pairs of nodes fit the cache.

        In training it is all of them, for the statistics of batch norm. shape: of the queries, [B, Q, D].
        """
        batch, queries, _ = shape
        pairs = (supports + 1) * (supports + 2) // 2
        graph = 4 * pairs * (self.embedding.width + self.inputs.way)
        return max(queries, 1) if self.training else max(1, PART_BYTES // max(batch * graph, 1))

    def graphs(
        self,
        *,
        query: Tensor,
        support: Tensor,
        label: Tensor,
        query_present: Tensor,
        support_present: Tensor,
    ) -> Tensor:
        """Logits [B, Q, way] of queries, each in its own graph with the supports.

        query [B, Q, D], support [B, S, D], label: one-hot [B, S, way], zero for absent supports; query_present: bool
        [B, Q]; support_present: bool [B, S].
        """
        queries = query.shape[1]
        first = self._labelled(query, torch.zeros_like(label[:, :1]).expand(-1, queries, -1))
        others = self._labelled(support, label)
        x = torch.cat([first.unsqueeze(2), _each(others, queries)], 2).flatten(0, 1)
        present = torch.cat([query_present.unsqueeze(2), _each(support_present, queries)], 2).flatten(0, 1)
        prior = torch.zeros((), dtype=x.dtype, device=x.device)
        if self.metric is not None:
            prior = _distance_prior(self.metric, self.in_units(query), self.in_units(support))
        blocks = zip(self.adjacency_nets, self.group_nets, self.mix, self.norm)
        for i, (net, groups, mix, norm) in enumerate(blocks):
            shared = i == 0 and not self.training
            logit = _with_shared_pairs(net, first, others) if shared else pair_values(net, x)
            near = [_neighbours(logit + prior, x, present), *_neighbours_of_groups(groups, x, prior, present)]
            mixed = mix(torch.cat([x, *near], -1))
            x = torch.cat([x, F.leaky_relu(over_rows(norm, mixed), LEAKY_SLOPE)], -1)
        return self._read_out(x, prior, present).unflatten(0, (-1, queries))

    def _labelled(self, x: Tensor, label: Tensor) -> Tensor:
        """Nodes: the embedding of x beside its label."""
        return torch.cat([self.embedding(x), label], -1)

    def _read_out(self, x: Tensor, prior: Tensor, present: Tensor) -> Tensor:
        """Outputs [G, way] of node 0. In evaluation only its own row is computed; batch norm trains on all."""
        net = self.adjacency_nets[BLOCKS]
        if self.training:
            logit = pair_values(net, x) + prior
        else:
            row = net((x[:, :1] - x).abs()).squeeze(-1)[:, None]
            logit = row + (prior[:, :1] if prior.ndim else prior)
        mixed = self.out(torch.cat([x[:, : logit.shape[1]], _neighbours(logit, x, present)], -1))
        return (mixed if self.out_norm is None else over_rows(self.out_norm, mixed))[:, 0]


def _with_shared_pairs(net: Pointwise, query: Tensor, support: Tensor) -> Tensor:
    """A net's values of the pairs of all graphs [B*Q, 1+S, 1+S]; pairs of supports, the same in all, are found once."""
    across = net((query[:, :, None] - support[:, None]).abs()).squeeze(-1)
    return _assembled(across, pair_values(net, support))


def _distance_prior(term: DistanceTerm, query: Tensor, support: Tensor) -> Tensor:
    """The distance term of all pairs of each query's graph [B*Q, 1+S, 1+S]."""
    across, among = squared_distances(query, support), squared_distances(support, support)
    return _assembled(term(across), term(among))


def _neighbours(logit: Tensor, x: Tensor, present: Tensor) -> Tensor:
    """W x [G, R, D], W the softmax of ``logit`` [G, R, n] of the first R nodes over the other present nodes."""
    own = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)[: logit.shape[1]]
    barred = NO_EDGE * (own | ~present[:, None, :]).to(x.dtype)
    return torch.softmax(logit - barred, -1) @ x


def _neighbours_of_groups(
    groups: GroupRelations | None, x: Tensor, prior: Tensor, present: Tensor
) -> list[Tensor]:
    """For each group of channels, W x of its own adjacency W, [G, n, D/heads]; none without groups."""
    if groups is None:
        return []
    return [_neighbours(logit + prior, part, present) for part, logit in groups.logits(x)]


def _each(x: Tensor, queries: int) -> Tensor:
    """x [B, ...] as [B, Q, ...], the same for every query."""
    return x[:, None].expand(-1, queries, *[-1] * (x.ndim - 1))


def _assembled(across: Tensor, among: Tensor) -> Tensor:
    """Pairs [B*Q, 1+S, 1+S] from query to support [B, Q, S] and between supports [B, S, S]; node 0 is the query."""
    corner = torch.zeros_like(across[..., :1])
    first = torch.cat([corner, across], -1).unsqueeze(2)
    rest = torch.cat([across.unsqueeze(-1), _each(among, across.shape[1])], -1)
    return torch.cat([first, rest], 2).flatten(0, 1)
