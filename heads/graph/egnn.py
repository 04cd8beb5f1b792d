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
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe
from .blocks import (
    EDGE_FLOOR,
    Embedding,
    GraphHead,
    GraphSettings,
    Nodes,
    Pointwise,
    add_distance_term,
    balanced_mean,
    distance_terms,
    edge_cross_entropy,
    learned_terms,
    node_labels,
    nodes_of,
    pair_values,
    query_votes,
    row_mass_kept,
    same_class,
    touching_queries,
    without_self,
)
from .groups import GroupRelations, relations_of


@dataclass(frozen=True)
class EGNNSettings(GraphSettings):
    """EGNN's settings."""

    layers: Count = 3
    """The number of layers, each of which renews nodes and edges."""
    node_width: Count = 48
    """The width of the networks that renew nodes (96 in the paper)."""
    edge_width: Count = 32
    """The width of the networks that renew edges (96 in the paper)."""
    transductive: bool = True
    """One graph with all queries of an episode; false: one graph a query."""
    dropout: Rate = 0.1
    """The dropout of whole channels (0.1 in the paper on mini-ImageNet)."""
    hidden_weight: NonNegative = 0.5
    """The weight of the losses of all layers but the last."""
    heads: CountOrNone = 0
    """The number of groups of channels that have a relation of their own, which scales the alike part of edges, beside
    the edges of whole nodes; 0 for these alone, as published."""


class EGNN(GraphHead[EGNNSettings]):
    Settings = EGNNSettings
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

    def __init__(self, inputs: Inputs, settings: EGNNSettings) -> None:
        super().__init__(inputs, settings)
        nodes, edges, hidden = settings.node_width, settings.edge_width, settings.layers - 1
        self.embedding = Embedding(inputs.one()[2], settings)
        widths = [self.embedding.width, *[nodes] * hidden]
        rates = [*[settings.dropout] * hidden, 0.0]
        kinds = 4 if settings.heads else 3
        self.node_nets = [
            Pointwise(kinds * width, [2 * nodes, nodes], drop=[0.0, rate])
            for width, rate in zip(widths, rates)
        ]
        self.group_nets = [relations_of(width, settings.heads) for width in widths]
        self.groups = nn.ModuleList(groups for groups in self.group_nets if groups is not None)
        self.edge_nets = [
            Pointwise(nodes, [2 * edges, 2 * edges, edges, edges], out=1, drop=[settings.dropout] * 4)
            for _ in widths
        ]
        self.terms = distance_terms(settings, self.edge_nets)
        self.node_net, self.edge_net = nn.ModuleList(self.node_nets), nn.ModuleList(self.edge_nets)
        self.metric = learned_terms(self.terms)

    def forward(self, episodes: Episodes) -> Tensor:
        graph = nodes_of(episodes, self.dtype)
        return query_votes(graph, self.alike(graph, episodes.ways)[-1], episodes.ways)

    def loss(self, episodes: Episodes) -> Losses:
        """The balanced cross-entropy of the edges that touch a query, weighted and averaged over layers."""
        graph = nodes_of(episodes, self.dtype)
        return self.edge_loss(self.alike(graph, episodes.ways), node_labels(episodes), graph)

    def edge_loss(self, alike: list[Tensor], label: Tensor, graph: Nodes) -> Losses:
        """The objective of every layer's first parts of edges [B, n, n] for the nodes' labels [B, n]."""
        same = same_class(label)
        counted = touching_queries(
            graph.present & (label >= 0), graph.supports, among_queries=self.settings.transductive
        )
        each = torch.stack([balanced_mean(edge_cross_entropy(edge, same), same, counted) for edge in alike])
        weight = torch.full_like(each, self.settings.hidden_weight)
        weight[-1] = 1.0
        return Losses((weight * each).mean(), {f"layer{i}": value for i, value in enumerate(each)})

    def alike(self, graph: Nodes, ways: int) -> list[Tensor]:
        """How alike nodes are after every layer, the first part of their edges, [B, n, n]."""
        if self.settings.transductive:
            start = initial_edges(graph, ways, query_self=True)
            return [edge[:, 0] for edge in self.layers(graph, start)]
        alone = one_graph_a_query(graph)
        edges = self.layers(alone, initial_edges(alone, ways, query_self=False))
        return [_as_one_graph(edge[:, 0], graph) for edge in edges]

    def layers(self, graph: Nodes, edge: Tensor) -> list[Tensor]:
        """Edges [B, 2, n, n] after every layer, from initial ones."""
        x, given = self.embedding(graph.x), self.in_units(graph.x)
        present, after = graph.pair_present()[:, None], []
        nets = zip(self.node_nets, self.edge_nets, self.group_nets, self.terms)
        for node_net, edge_net, groups, term in nets:
            x = node_net(torch.cat([_with_neighbours(x, edge), *_neighbours_of_groups(groups, x, edge)], -1))
            logit, given = add_distance_term(term, pair_values(edge_net, x), given, edge[:, 0])
            edge = _updated(torch.sigmoid(logit), edge) * present
            after.append(edge)
        return after


def _with_neighbours(x: Tensor, edge: Tensor) -> Tensor:
    """Nodes [B, n, 3D]: x [B, n, D] beside the means of their neighbours along both parts of edges [B, 2, n, n]."""
    weight = F.normalize(without_self(edge), p=1.0, dim=-1)
    return torch.cat([x, weight[:, 0] @ x, weight[:, 1] @ x], -1)


def _neighbours_of_groups(groups: GroupRelations | None, x: Tensor, edge: Tensor) -> list[Tensor]:
    """For each group of channels of x [B, n, D], its neighbours' means along alike edges that its relation scales.

    They are [B, n, D/heads] each; there are none without groups.
    """
    if groups is None:
        return []
    alike = without_self(edge[:, 0])
    return [
        F.normalize(torch.sigmoid(logit) * alike, p=1.0, dim=-1) @ part for part, logit in groups.logits(x)
    ]


def _updated(similarity: Tensor, edge: Tensor) -> Tensor:
    """Edges [B, 2, n, n] times the similarity [B, n, n] and one minus it; both parts of an edge sum to one."""
    edge = row_mass_kept(torch.stack([similarity, 1 - similarity], 1), edge)
    own = torch.eye(edge.shape[-1], dtype=edge.dtype, device=edge.device)
    edge = edge + torch.stack([own, torch.zeros_like(own)]) + EDGE_FLOOR
    return edge / edge.sum(1, keepdim=True)


def initial_edges(graph: Nodes, ways: int, *, query_self: bool) -> Tensor:
    """Edges [B, 2, n, n]: supports are alike (1, 0) or unlike (0, 1), pairs with a query neither (.5, .5).

    Absent nodes have no edge. query_self: a query is alike to itself (transductive); else (.5, .5) holds there too, as
    in the released inductive code.
    """
    n, s = graph.x.shape[1], graph.supports
    alike = torch.full((n, n), 0.5, dtype=graph.x.dtype, device=graph.x.device)
    alike[:s, :s] = graph.supports_of_one_class(ways)
    if query_self:
        alike.fill_diagonal_(1.0)
    return torch.stack([alike, 1 - alike]) * graph.pair_present()[:, None]


def one_graph_a_query(graph: Nodes) -> Nodes:
    """B*Q graphs of the supports and one query each."""
    s, each = graph.supports, (-1, graph.queries)
    x = torch.cat([graph.x[:, None, :s].expand(*each, -1, -1), graph.x[:, s:, None]], 2)
    present = torch.cat([graph.present[:, None, :s].expand(*each, -1), graph.present[:, s:, None]], 2)
    return Nodes(x.flatten(0, 1), present.flatten(0, 1), s)


def _as_one_graph(edge: Tensor, graph: Nodes) -> Tensor:
    """Edges [B, n, n] of those of one graph a query [B*Q, s+1, s+1]: support pairs are averaged, query pairs zero."""
    s, n = graph.supports, graph.x.shape[1]
    each = edge.unflatten(0, (-1, graph.queries))
    whole = edge.new_zeros(each.shape[0], n, n)
    whole[:, :s, :s] = each[:, :, :s, :s].mean(1)
    whole[:, s:, :s] = each[:, :, s, :s]
    whole[:, :s, s:] = each[:, :, :s, s].transpose(1, 2)
    return whole
