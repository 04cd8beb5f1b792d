"""EGNN: Edge-Labeling Graph Neural Network for Few-shot Learning (Kim, Kim, Kim and Yoo, CVPR 2019).

Every pair of nodes has an edge with two parts, how alike and how unlike. Layer by layer, nodes gather their neighbours
along both parts, and edges are multiplied by a similarity read off |x_i - x_j|; a query's class is the one whose
supports its last edges hold to most. Transductive over all queries of an episode, or inductive with one graph a query;
it uses no label and no class balance of the queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.tensors import class_sum
from ..settings import Recipe
from .blocks import (
    Embedding,
    GraphHead,
    GraphSettings,
    Metric,
    Nodes,
    Pointwise,
    balanced,
    carry_mass,
    edge_entropy,
    node_labels,
    nodes,
    pair_distances,
    pairwise,
    same_class,
    touching_queries,
    without_self,
)

FLOOR = 1e-6  # added to both parts of an edge before they are made to sum to one


@dataclass(frozen=True)
class EGNNSettings(GraphSettings):
    """layers: L. node_width, edge_width: of the node and edge networks (published: 96 both).

    transductive: one graph with all queries; else one a query. dropout: of whole channels (published: 0.1 on mini).
    hidden_weight: weight of the losses of all layers but the last.
    """

    layers: int = 3
    node_width: int = 48
    edge_width: int = 32
    transductive: bool = True
    dropout: float = 0.1
    hidden_weight: float = 0.5


class EGNN(GraphHead):
    settings_class = EGNNSettings
    light = True
    recipe = Recipe(
        steps=150,
        tasks=4,
        query=5,
        rate=5e-4,
        weight_decay=1e-6,
        mix=1.0,
        evaluate_every=25,
        evaluate_episodes=200,
        patience=4,
    )

    def __init__(self, inputs: Inputs, settings: EGNNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own: EGNNSettings = self.settings
        _, _, dim = inputs.one()
        self.embedding = Embedding(dim, own)
        nf, ef, rate = own.node_width, own.edge_width, own.dropout
        sizes = [self.embedding.width] + [nf] * own.layers
        last = own.layers - 1
        self.node_net = nn.ModuleList(
            Pointwise(3 * size, [2 * nf, nf], drop=[0.0, rate if i < last else 0.0])
            for i, size in enumerate(sizes[:-1])
        )
        self.edge_net = nn.ModuleList(
            Pointwise(nf, [2 * ef, 2 * ef, ef, ef], out=1, drop=[rate] * 4) for _ in range(own.layers)
        )
        self.metric = nn.ModuleList(
            Metric(own.metric_scale, own.smooth) for _ in range(own.layers if own.metric else 0)
        )
        if own.metric:
            for i in range(own.layers):
                Pointwise.of(self.edge_net, i).silence()

    def forward(self, episodes: Episodes) -> Tensor:
        graph = nodes(episodes, self.dtype)
        similar = self._edges(graph, episodes)[-1]
        logits = class_sum(similar[:, graph.supports :, : graph.supports], episodes.ways)
        known = graph.present[:, : graph.supports].unflatten(1, (episodes.ways, -1)).any(2)
        return neutral(logits, graph.present[:, graph.supports :], known)

    def loss(self, episodes: Episodes) -> Losses:
        """Balanced cross-entropy of the edges that touch a query, weighted and averaged over layers."""
        graph = nodes(episodes, self.dtype)
        edges = self._edges(graph, episodes)
        return self.edge_loss(edges, node_labels(episodes), graph)

    def edge_loss(self, similar: list[Tensor], label: Tensor, graph: Nodes) -> Losses:
        """The objective of the layers' similar parts [B, n, n] for labels [B, n]."""
        same = same_class(label)
        known = graph.present & (label >= 0)
        counted = touching_queries(known, graph.supports, self.settings.transductive)
        each = torch.stack([balanced(edge_entropy(edge, same), same, counted) for edge in similar])
        weight = torch.full_like(each, self.settings.hidden_weight)
        weight[-1] = 1.0
        parts = {f"layer{i}": value for i, value in enumerate(each)}
        return Losses((weight * each).mean(), parts)

    def _edges(self, graph: Nodes, episodes: Episodes) -> list[Tensor]:
        """The similar part [B, n, n] after every layer."""
        if self.settings.transductive:
            start = initial_edges(graph, episodes.ways, query_self=True)
            return [edge[:, 0] for edge in self.layers(graph, start)]
        queries = graph.x.shape[1] - graph.supports
        single = one_graph_a_query(graph)
        edges = self.layers(single, initial_edges(single, episodes.ways, query_self=False))
        return [_together(edge[:, 0], graph, queries) for edge in edges]

    def layers(self, graph: Nodes, edge: Tensor) -> list[Tensor]:
        """Edges [B, 2, n, n] after every layer, from initial ones."""
        x, there = self.embedding(graph.x), graph.pair_mask()[:, None]
        plain, after = self.plain(graph.x), []
        for i in range(self.settings.layers):
            x = self._update_nodes(i, x, edge)
            if len(self.metric):
                plain = Metric.of(self.metric, i).smooth(plain, edge[:, 0])
            edge = self._update_edges(i, x, edge, plain) * there
            after.append(edge)
        return after

    def _update_nodes(self, layer: int, x: Tensor, edge: Tensor) -> Tensor:
        weight = F.normalize(without_self(edge), p=1.0, dim=-1)
        alike, unlike = weight[:, 0] @ x, weight[:, 1] @ x
        return self.node_net[layer](torch.cat([x, alike, unlike], -1))

    def _update_edges(self, layer: int, x: Tensor, edge: Tensor, plain: Tensor) -> Tensor:
        logit = pairwise(Pointwise.of(self.edge_net, layer), x)
        if len(self.metric):
            logit = logit + self.metric[layer](pair_distances(plain))
        similar = torch.sigmoid(logit)
        edge = carry_mass(torch.stack([similar, 1 - similar], 1), edge)
        own = torch.eye(edge.shape[-1], dtype=edge.dtype, device=edge.device)
        edge = edge + torch.stack([own, torch.zeros_like(own)]) + FLOOR
        return edge / edge.sum(1, keepdim=True)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        supports = ways * shots
        pairs = (supports + queries) ** 2 if self.settings.transductive else queries * (supports + 1) ** 2
        return pairs * self.settings.edge_width * 8


def initial_edges(graph: Nodes, ways: int, query_self: bool) -> Tensor:
    """[B, 2, n, n]: supports alike (1, 0) or unlike (0, 1), pairs with a query (.5, .5); nothing at absent nodes.

    query_self: a query is alike to itself (transductive); else (.5, .5) there too, as in the released inductive code.
    """
    n, s = graph.x.shape[1], graph.supports
    label = torch.arange(ways, device=graph.x.device).repeat_interleave(s // ways)
    alike = torch.full((n, n), 0.5, dtype=graph.x.dtype, device=graph.x.device)
    alike[:s, :s] = (label[:, None] == label).to(alike.dtype)
    if query_self:
        alike.fill_diagonal_(1.0)
    return torch.stack([alike, 1 - alike]) * graph.pair_mask()[:, None]


def one_graph_a_query(graph: Nodes) -> Nodes:
    """B*Q graphs of the supports and one query each."""
    s = graph.supports
    queries = graph.x.shape[1] - s
    x = torch.cat([graph.x[:, None, :s].expand(-1, queries, -1, -1), graph.x[:, s:, None]], 2)
    present = torch.cat([graph.present[:, None, :s].expand(-1, queries, -1), graph.present[:, s:, None]], 2)
    return Nodes(x.flatten(0, 1), present.flatten(0, 1), s)


def _together(edge: Tensor, graph: Nodes, queries: int) -> Tensor:
    """Edges of one graph a query [B*Q, s+1, s+1] as one [B, n, n]; support pairs averaged, query pairs zero."""
    s = graph.supports
    each = edge.unflatten(0, (-1, queries))
    whole = edge.new_zeros(each.shape[0], s + queries, s + queries)
    whole[:, :s, :s] = each[:, :, :s, :s].mean(1)
    whole[:, s:, :s] = each[:, :, s, :s]
    whole[:, :s, s:] = each[:, :, :s, s].transpose(1, 2)
    return whole
