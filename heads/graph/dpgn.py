"""DPGN: Distribution Propagation Graph Network for Few-shot Learning (Yang, Li, Zhang, Zhou, Zhou and Liu, CVPR 2020).

Two graphs over the same samples teach one another: a point graph of features, and a distribution graph whose nodes hold
how a sample relates to the supports. In each generation point edges renew distribution nodes, distribution edges renew
point nodes; a query's class is the one whose supports its last point edges hold to most. Transductive; it uses no label
and no class balance of the queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import cross_entropy
from ..parts.tensors import check_ways, class_sum
from ..settings import Recipe
from .blocks import (
    SLOPE,
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

FLOOR = 1e-6  # added to every edge before rows are made to sum to one


@dataclass(frozen=True)
class DPGNSettings(GraphSettings):
    """generations: G (published: 6). width: of the point nodes after a generation, 0 for the embedding's (published:
        128, as the embedding's).
    distribution: "sample" keeps one number a support in a distribution node as published; "class" one a class, as does
        "sample" where shots vary. For one shot they are the same.
    gap: "l2" for (v_i - v_j)^2 or "l1" for |v_i - v_j|, between nodes of either graph.
    weighed_generations: how many generations enter the loss (0: all): as published the first ones, each times
        ``generation_weight``, and the last one whole.
    distribution_weight, distance_weight: of the distribution edges, and of the cross-entropy of feature distances.
    use_point, use_distance, use_distribution: the released loss_indicator; off multiplies that output by zero.
    transposed_distance_loss: the released code's slip: the cross-entropy of feature distances takes the axis of queries
        for that of classes (needs one query a class).
    """

    embed: int = 32
    generations: int = 3
    width: int = 0
    distribution: str = "sample"
    gap: str = "l2"
    dropout: float = 0.1
    weighed_generations: int = 0
    generation_weight: float = 0.2
    distribution_weight: float = 0.1
    distance_weight: float = 0.1
    use_point: bool = True
    use_distance: bool = True
    use_distribution: bool = True
    transposed_distance_loss: bool = False


@dataclass
class Generation:
    """point, distribution: edges [B, n, n]; distance: minus the squared (l1: absolute) distances of the point nodes."""

    point: Tensor
    distance: Tensor
    distribution: Tensor


class DPGN(GraphHead):
    settings_class = DPGNSettings
    light = True
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
    position_tied = True

    def __init__(self, inputs: Inputs, settings: DPGNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own: DPGNSettings = self.settings
        if own.distribution not in ("class", "sample"):
            raise UsageError(f"distribution={own.distribution!r} is not known; use class or sample.")
        if own.gap not in ("l1", "l2"):
            raise UsageError(f"gap={own.gap!r} is not known; use l1 or l2.")
        _, _, dim = inputs.one()
        self.middle, self.embedding = Embedding(dim, own), Embedding(dim, own)
        width = self.embedding.width
        base, rate = own.width or width, own.dropout
        self.shot = inputs.shot if own.distribution == "sample" else None
        self.places = inputs.way * (self.shot or 1)
        count = range(own.generations)
        sizes = [width] + [base] * own.generations
        self.first_edge = _similarity(self.middle.width, base, rate)
        self.point_edge = nn.ModuleList(_similarity(sizes[g], base, rate) for g in count)
        self.to_distribution = nn.ModuleList(nn.Linear(2 * self.places, self.places) for _ in count)
        self.distribution_edge = nn.ModuleList(_similarity(self.places, self.places, rate) for _ in count)
        self.to_point = nn.ModuleList(
            Pointwise(2 * sizes[g], [2 * base, base], drop=[0.0, rate]) for g in count
        )
        steps = own.generations + 1 if own.metric else 0
        self.metric = nn.ModuleList(Metric(own.metric_scale, own.smooth) for _ in range(steps))
        if own.metric:
            self.first_edge.silence()
            for g in count:
                Pointwise.of(self.point_edge, g).silence()

    def forward(self, episodes: Episodes) -> Tensor:
        graph, last = self._run(episodes)
        s = graph.supports
        logits = class_sum(last[-1].point[:, s:, :s], episodes.ways)
        known = graph.present[:, :s].unflatten(1, (episodes.ways, -1)).any(2)
        return neutral(logits, graph.present[:, s:], known)

    def loss(self, episodes: Episodes) -> Losses:
        """Edge and distance losses of the weighed generations; see ``objective``."""
        graph, after = self._run(episodes)
        return self.objective(after, node_labels(episodes), graph, episodes.ways)

    def _run(self, episodes: Episodes) -> tuple[Nodes, list[Generation]]:
        check_ways(episodes, self.inputs.way, "DPGN")
        self._check_shots(episodes)
        graph = nodes(episodes, self.dtype)
        place = self._places(episodes)
        start = initial_edges(graph, episodes.ways)
        held = initial_distribution(graph, self._fellows(episodes))
        return graph, self.run(self.middle(graph.x), self.embedding(graph.x), held, start, place, graph)

    def _check_shots(self, episodes: Episodes) -> None:
        if self.shot is not None and episodes.shots != self.shot:
            raise UsageError(
                f"distribution=sample was built for {self.shot} shots and got {episodes.shots}; use distribution=class."
            )

    def _places(self, episodes: Episodes) -> Tensor:
        """Which of the distribution's places each support fills, one-hot [N*K, places]."""
        count = episodes.ways * episodes.shots
        place = torch.arange(count, device=episodes.device)
        if self.shot is None:
            place = place // episodes.shots
        return F.one_hot(place, self.places).to(self.dtype)

    def _fellows(self, episodes: Episodes) -> Tensor:
        """Which places the supports of each support's class fill, [N*K, places] of zeros and ones."""
        place = self._places(episodes)
        return place.unflatten(0, (episodes.ways, -1)).amax(1).repeat_interleave(episodes.shots, 0)

    def run(
        self,
        middle: Tensor,
        point: Tensor,
        held: Tensor,
        edge: Tensor,
        place: Tensor,
        graph: Nodes,
    ) -> list[Generation]:
        """All generations. middle, point: features [B, n, D]; held: distribution nodes [B, n, places]; edge: the first
        of both graphs [B, n, n]; place [N*K, places].
        """
        there, s = graph.pair_mask(), graph.supports
        plain = self._smoothed(self.plain(graph.x), edge, 0)
        point_edge = self._edges(self.first_edge, middle, edge, there, self._prior(plain, 0))
        held_edge, after = edge, []
        for g in range(self.settings.generations):
            plain = self._smoothed(plain, point_edge, g + 1)
            point_edge = self._edges(
                Pointwise.of(self.point_edge, g), point, point_edge, there, self._prior(plain, g + 1)
            )
            distance = self._distance(point)
            seen = torch.cat([point_edge[:, :, :s] @ place, held], -1)
            held = F.leaky_relu(self.to_distribution[g](seen), SLOPE)
            held_edge = self._edges(Pointwise.of(self.distribution_edge, g), held, held_edge, there, None)
            around = F.normalize(without_self(held_edge), p=1.0, dim=-1) @ point
            point = self.to_point[g](torch.cat([point, around], -1))
            own = self.settings
            after.append(
                Generation(
                    point_edge * float(own.use_point),
                    distance * float(own.use_distance),
                    held_edge * float(own.use_distribution),
                )
            )
        return after

    def _smoothed(self, plain: Tensor, edge: Tensor, number: int) -> Tensor:
        return Metric.of(self.metric, number).smooth(plain, edge) if len(self.metric) else plain

    def _prior(self, plain: Tensor, number: int) -> Tensor | None:
        return self.metric[number](pair_distances(plain)) if len(self.metric) else None

    def _edges(
        self, net: Pointwise, x: Tensor, previous: Tensor, there: Tensor, prior: Tensor | None
    ) -> Tensor:
        """One similarity unit: edges [B, n, n] from nodes x and the edges before."""
        logit = pairwise(net, x, square=self.settings.gap == "l2")
        if prior is not None:
            logit = logit + prior
        edge = carry_mass(torch.sigmoid(logit), previous)
        own = torch.eye(edge.shape[-1], dtype=edge.dtype, device=edge.device)
        edge = (edge + own + FLOOR) * there
        return F.normalize(edge, p=1.0, dim=-1)

    def _distance(self, x: Tensor) -> Tensor:
        if self.settings.gap == "l2":
            return -pair_distances(x)
        return -(x[:, :, None] - x[:, None]).abs().sum(-1)

    def objective(self, after: list[Generation], label: Tensor, graph: Nodes, ways: int) -> Losses:
        """Per generation, over pairs that touch a query: the balanced cross-entropy of point edges, plus
        ``distribution_weight`` times that of distribution edges; and ``distance_weight`` times the cross-entropy of
        class-summed distances.
        """
        own = self.settings
        same, known = same_class(label), graph.present & (label >= 0)
        counted = touching_queries(known, graph.supports)
        each = []
        for state in after:
            value = edge_entropy(state.point, same)
            value = value + own.distribution_weight * edge_entropy(state.distribution, same)
            each.append(
                balanced(value, same, counted)
                + own.distance_weight * self._distance_loss(state.distance, label, graph, ways)
            )
        early = [
            own.generation_weight * value for value in each[: (own.weighed_generations or len(each)) - 1]
        ]
        parts = {f"generation{i}": value for i, value in enumerate(each)}
        return Losses(torch.stack([*early, each[-1]]).mean(), parts)

    def _distance_loss(self, distance: Tensor, label: Tensor, graph: Nodes, ways: int) -> Tensor:
        s = graph.supports
        logits = class_sum(distance[:, s:, :s], ways)
        truth = label[:, s:].masked_fill(~graph.present[:, s:], -1)
        if not self.settings.transposed_distance_loss:
            return cross_entropy(logits, truth)
        if logits.shape[1] != ways:
            raise UsageError("transposed_distance_loss needs one query a class; set train.query=1.")
        return F.cross_entropy(logits, truth, ignore_index=-1)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return (ways * shots + queries) ** 2 * (self.settings.width or self.embedding.width) * 8


def _similarity(inputs: int, width: int, dropout: float) -> Pointwise:
    return Pointwise(inputs, [2 * width, width], out=1, drop=[dropout] * 2)


def initial_edges(graph: Nodes, ways: int) -> Tensor:
    """[B, n, n]: 1 between supports of a class and at each node itself, 1 / (present supports) between support and
    query, else 0; nothing at absent nodes.
    """
    n, s = graph.x.shape[1], graph.supports
    device, dtype = graph.x.device, graph.x.dtype
    label = torch.arange(ways, device=device).repeat_interleave(s // ways)
    edge = torch.eye(n, dtype=dtype, device=device)
    edge[:s, :s] = (label[:, None] == label).to(dtype)
    across = torch.zeros_like(edge)
    across[:s, s:] = across[s:, :s] = 1.0
    count = graph.present[:, :s].sum(1).clamp(min=1).to(dtype)
    return (edge + across / count[:, None, None]) * graph.pair_mask()


def initial_distribution(graph: Nodes, fellows: Tensor) -> Tensor:
    """[B, n, places]: a support's row marks the places of its class (``fellows`` [N*K, places]), a query's is even."""
    used = fellows.amax(0)
    even = (used / used.sum()).expand(graph.x.shape[1] - graph.supports, -1)
    rows = torch.cat([fellows, even]).expand(graph.x.shape[0], -1, -1)
    return rows * graph.present[..., None].to(rows.dtype)
