"""DPGN: Distribution Propagation Graph Network for Few-shot Learning (Yang, Li, Zhang, Zhou, Zhou and Liu, CVPR 2020).

Two graphs over the same samples teach one another: a point graph of features, and a distribution graph whose nodes hold
how a sample relates to the supports. In each generation point edges renew distribution nodes, distribution edges renew
point nodes; a query's class is the one whose supports its last point edges hold to most. Transductive; it uses no label
and no class balance of the queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.losses import cross_entropy
from ..parts.tensors import check_ways, class_sum
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe
from .blocks import (
    EDGE_FLOOR,
    LEAKY_SLOPE,
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
    pair_distances,
    pair_values,
    query_votes,
    row_mass_kept,
    same_class,
    touching_queries,
    without_self,
)


@dataclass(frozen=True)
class DPGNSettings(GraphSettings):
    """DPGN's settings."""

    embed: CountOrNone = 32
    """The width of a learned linear embedding before the graph, begun as a random orthogonal map; 0 for none. It stands
    in for the published backbone's last layer (128) and keeps the pair layers cheap."""
    generations: Count = 3
    """The number of generations (6 in the paper)."""
    width: CountOrNone = 0
    """The width of the point nodes after a generation; 0 for the embedding's (128 in the paper, as its embedding's)."""
    distribution: Literal["sample", "class"] = "sample"
    """A distribution node keeps one number a support ("sample", as published) or one a class ("class"), as "sample"
    does too where shots vary; for one shot they are the same."""
    gap: Literal["l2", "l1"] = "l2"
    """The difference between two nodes of either graph: (v_i - v_j)^2 or |v_i - v_j|."""
    dropout: Rate = 0.1
    """The dropout of whole channels."""
    weighed_generations: CountOrNone = 0
    """The number of generations in the loss: as published the first ones, each times ``generation_weight``, and the
    last one whole; 0 for all."""
    generation_weight: NonNegative = 0.2
    """The weight of the losses of all generations but the last."""
    distribution_weight: NonNegative = 0.1
    """The weight of the loss of distribution edges."""
    distance_weight: NonNegative = 0.1
    """The weight of the cross-entropy of feature distances."""
    use_point: bool = True
    """Use the point edges; false multiplies them by zero (the released loss_indicator)."""
    use_distance: bool = True
    """Use the feature distances; false multiplies them by zero (the released loss_indicator)."""
    use_distribution: bool = True
    """Use the distribution edges; false multiplies them by zero (the released loss_indicator)."""
    transposed_distance_loss: bool = False
    """The released code's slip: the cross-entropy of feature distances takes the axis of queries for that of classes
    (it needs one query a class)."""


@dataclass
class Generation:
    """What a generation leaves: point and distribution edges [B, n, n], and minus the distances of the point nodes.

    distance: minus the squared (l1: absolute) distances [B, n, n] of the point nodes that the generation began with.
    """

    point: Tensor
    distance: Tensor
    distribution: Tensor


class DPGN(GraphHead[DPGNSettings]):
    Settings = DPGNSettings
    recipe = Recipe(
        steps=250,
        tasks=20,
        query=1,
        rate=1e-3,
        weight_decay=1e-5,
        decay=0.1,
        decay_every=200,
        mix=1.0,
        evaluate_every=25,
        evaluate_episodes=200,
        patience=6,
    )

    def __init__(self, inputs: Inputs, settings: DPGNSettings) -> None:
        super().__init__(inputs, settings)
        dim, rate = inputs.one()[2], settings.dropout
        self.middle, self.embedding = Embedding(dim, settings), Embedding(dim, settings)
        width = settings.width or self.embedding.width
        widths = [self.embedding.width, *[width] * (settings.generations - 1)]
        self.shot = inputs.shot if settings.distribution == "sample" else None
        self.places = places = inputs.way * (self.shot or 1)
        self.first_edge = _similarity_net(self.middle.width, width, rate)
        self.point_nets = [_similarity_net(w, width, rate) for w in widths]
        self.place_maps = [nn.Linear(2 * places, places) for _ in widths]
        self.distribution_nets = [_similarity_net(places, places, rate) for _ in widths]
        self.node_nets = [Pointwise(2 * w, [2 * width, width], drop=[0.0, rate]) for w in widths]
        self.terms = distance_terms(settings, [self.first_edge, *self.point_nets])
        self.point_edge, self.to_distribution = nn.ModuleList(self.point_nets), nn.ModuleList(self.place_maps)
        self.distribution_edge = nn.ModuleList(self.distribution_nets)
        self.to_point, self.metric = nn.ModuleList(self.node_nets), learned_terms(self.terms)

    def forward(self, episodes: Episodes) -> Tensor:
        graph, after = self.generations(episodes)
        return query_votes(graph, after[-1].point, episodes.ways)

    def loss(self, episodes: Episodes) -> Losses:
        """Edge and distance losses of the weighed generations; see :meth:`objective`."""
        graph, after = self.generations(episodes)
        return self.objective(after, node_labels(episodes), graph, episodes.ways)

    def generations(self, episodes: Episodes) -> tuple[Nodes, list[Generation]]:
        """The nodes of episodes and what every generation leaves.

        Raises UsageError where the episodes have more classes than the head has places, or another number of shots.
        """
        check_ways(episodes, self.inputs.way, "DPGN")
        if self.shot is not None and episodes.shots != self.shot:
            raise UsageError(
                f"distribution=sample was built for {self.shot} shots and got {episodes.shots}; use distribution=class."
            )
        graph, place = nodes_of(episodes, self.dtype), self.places_of_supports(episodes)
        of_class = place.unflatten(0, (episodes.ways, -1)).amax(1).repeat_interleave(episodes.shots, 0)
        return graph, self.run(
            graph,
            middle=self.middle(graph.x),
            point=self.embedding(graph.x),
            distribution=initial_distribution(graph, of_class),
            edge=initial_edges(graph, episodes.ways),
            place=place,
        )

    def places_of_supports(self, episodes: Episodes) -> Tensor:
        """Which place of a distribution node each support fills, one-hot [N*K, places]."""
        place = torch.arange(episodes.ways * episodes.shots, device=episodes.device)
        if self.shot is None:
            place = place // episodes.shots
        return F.one_hot(place, self.places).to(self.dtype)

    def run(
        self,
        graph: Nodes,
        *,
        middle: Tensor,
        point: Tensor,
        distribution: Tensor,
        edge: Tensor,
        place: Tensor,
    ) -> list[Generation]:
        """What every generation leaves.

        middle, point: features [B, n, D] of the first point edges and of the first point nodes; distribution: nodes
        [B, n, places]; edge: the initial edges [B, n, n] of both graphs; place: one-hot [N*K, places].
        """
        present, s, own = graph.pair_present(), graph.supports, self.settings
        first, *terms = self.terms
        given, after = self.in_units(graph.x), []
        logit, given = add_distance_term(first, self._pair_logits(self.first_edge, middle), given, edge)
        point_edge, distribution_edge = _updated(logit, edge, present), edge
        for point_net, term, to_places, distribution_net, node_net in zip(
            self.point_nets, terms, self.place_maps, self.distribution_nets, self.node_nets
        ):
            logit, given = add_distance_term(term, self._pair_logits(point_net, point), given, point_edge)
            point_edge = _updated(logit, point_edge, present)
            distance = self._nearness(point)
            seen = torch.cat([point_edge[:, :, :s] @ place, distribution], -1)
            distribution = F.leaky_relu(to_places(seen), LEAKY_SLOPE)
            logit = self._pair_logits(distribution_net, distribution)
            distribution_edge = _updated(logit, distribution_edge, present)
            around = F.normalize(without_self(distribution_edge), p=1.0, dim=-1) @ point
            point = node_net(torch.cat([point, around], -1))
            after.append(
                Generation(
                    point=point_edge * float(own.use_point),
                    distance=distance * float(own.use_distance),
                    distribution=distribution_edge * float(own.use_distribution),
                )
            )
        return after

    def _pair_logits(self, net: Pointwise, x: Tensor) -> Tensor:
        """How alike the nodes x [B, n, D] of either graph are, [B, n, n], before the sigmoid."""
        return pair_values(net, x, squared=self.settings.gap == "l2")

    def _nearness(self, x: Tensor) -> Tensor:
        """Minus the squared (l1: absolute) distances [B, n, n] of nodes x [B, n, D]."""
        if self.settings.gap == "l2":
            return -pair_distances(x)
        return -(x[:, :, None] - x[:, None]).abs().sum(-1)

    def objective(self, after: list[Generation], label: Tensor, graph: Nodes, ways: int) -> Losses:
        """The mean over the weighed generations of the loss of each, for the nodes' labels [B, n].

        It is, over pairs that touch a query, the balanced cross-entropy of point edges, plus ``distribution_weight``
        times that of distribution edges; and ``distance_weight`` times the cross-entropy of class-summed distances.
        """
        own, same = self.settings, same_class(label)
        counted = touching_queries(graph.present & (label >= 0), graph.supports)
        each = []
        for state in after:
            value = edge_cross_entropy(state.point, same)
            value = value + own.distribution_weight * edge_cross_entropy(state.distribution, same)
            distance = self.distance_loss(state.distance, label, graph, ways)
            each.append(balanced_mean(value, same, counted) + own.distance_weight * distance)
        weighed = each[: (own.weighed_generations or len(each)) - 1]
        early = [own.generation_weight * value for value in weighed]
        parts = {f"generation{i}": value for i, value in enumerate(each)}
        return Losses(torch.stack([*early, each[-1]]).mean(), parts)

    def distance_loss(self, distance: Tensor, label: Tensor, graph: Nodes, ways: int) -> Tensor:
        """The cross-entropy of the queries' class sums of ``distance`` [B, n, n] for the nodes' labels [B, n].

        Raises UsageError where ``transposed_distance_loss`` meets another number of queries than classes.
        """
        s = graph.supports
        logits = class_sum(distance[:, s:, :s], ways)
        truth = label[:, s:].masked_fill(~graph.present[:, s:], -1)
        if not self.settings.transposed_distance_loss:
            return cross_entropy(logits, truth)
        if logits.shape[1] != ways:
            raise UsageError("transposed_distance_loss needs one query a class; set train.query=1.")
        return F.cross_entropy(logits, truth, ignore_index=-1)


def _similarity_net(inputs: int, width: int, dropout: float) -> Pointwise:
    return Pointwise(inputs, [2 * width, width], out=1, drop=[dropout] * 2)


def _updated(logit: Tensor, previous: Tensor, pair_present: Tensor) -> Tensor:
    """Edges from the logits of similarities and the edges before; rows sum to one; all [B, n, n]."""
    edge = row_mass_kept(torch.sigmoid(logit), previous)
    own = torch.eye(edge.shape[-1], dtype=edge.dtype, device=edge.device)
    return F.normalize((edge + own + EDGE_FLOOR) * pair_present, p=1.0, dim=-1)


def initial_edges(graph: Nodes, ways: int) -> Tensor:
    """Edges [B, n, n]: 1 between supports of a class and at each node itself; between a support and a query 1 / S.

    S is the number of present supports. All other edges are 0, and absent nodes have none.
    """
    n, s = graph.x.shape[1], graph.supports
    edge = torch.eye(n, dtype=graph.x.dtype, device=graph.x.device)
    edge[:s, :s] = graph.supports_of_one_class(ways)
    across = torch.zeros_like(edge)
    across[:s, s:] = across[s:, :s] = 1.0
    count = graph.present[:, :s].sum(1).clamp(min=1).to(edge.dtype)
    return (edge + across / count[:, None, None]) * graph.pair_present()


def initial_distribution(graph: Nodes, of_class: Tensor) -> Tensor:
    """Distribution nodes [B, n, places]: a support's marks the places of its class, a query's is even over all.

    of_class: the places that the supports of each support's class fill, [N*K, places] of zeros and ones.
    """
    used = of_class.amax(0)
    even = (used / used.sum()).expand(graph.queries, -1)
    rows = torch.cat([of_class, even]).expand(graph.x.shape[0], -1, -1)
    return rows * graph.present[..., None].to(rows.dtype)
