"""ECKPN: Explicit Class Knowledge Propagation Network for Transductive Few-Shot Learning (Chen, Yang, Xu, Huang and
Ma, CVPR 2021).

A comparison module passes messages on the graph of all supports and queries, by relations of all channels and of
groups of them; a squeeze module pools this graph into one node a class by a soft assignment; a calibration module lets
the class nodes speak to each other and to their word vectors. Class knowledge goes back to the queries, which are
classified. Transductive: the queries of a task are nodes of one graph (their labels are never seen, nor is any class
balance assumed).

No official code is public; docs/methods/eckpn.md lists what follows the paper and what was chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.losses import cross_entropy
from ..parts.tensors import class_means, flat_support, single, support_labels
from ..settings import Recipe, Settings
from .eckpn_class import Calibration, Combination, WordMap, assignment, edge_votes, squeeze
from .eckpn_graph import Comparison, episode_unit, first_adjacency


@dataclass(frozen=True)
class ECKPNSettings(Settings):
    """form: "symmetric" (classes may be permuted), or "positional", the literal reading with an N-column assignment
        layer and a linear N-way classifier tied to class positions.
    layers, heads: comparison layers; groups of channels beside the un-split relation (0: that one alone).
    width: channels that are compared; divisible by heads.
    projection: "fixed", nodes are the features and a frozen random rotation picks what is compared; "learned", a
        linear map to ``width`` channels makes the nodes.
    start: "similarity", stacks start at zero on top of a plain similarity graph; "none", the published plain stacks.
    norm: "layer", or "batch" as published (batch statistics in training, running ones in evaluation).
    masks: edges are multiplied by the previous layer's adjacency.
    squeeze, calibration, words: the modules; all off leaves the instance graph.
    sharpness: of the plain similarity, per mean squared distance. blend: share of the neighbours in a message.
    word_weight: share by which words draw a class node (0: words off). ridge: penalty of their regression.
    adjacency_weight, assignment_weight, classification_weight: of the three losses.
    """

    form: str = "symmetric"
    layers: int = 2
    heads: int = 8
    width: int = 32
    projection: str = "fixed"
    start: str = "similarity"
    norm: str = "layer"
    masks: bool = True
    squeeze: bool = True
    calibration: bool = True
    words: bool = True
    sharpness: float = 9.0
    blend: float = 0.5
    word_weight: float = 0.2
    ridge: float = 1.0
    adjacency_weight: float = 1.0
    assignment_weight: float = 0.5
    classification_weight: float = 1.0


@dataclass
class _Graph:
    """What one pass computes. scores: f [B, R, R] a layer; p: log-assignment [B, *, N]; logits [B, Q, N]."""

    scores: list[Tensor]
    log_p: Tensor
    logits: Tensor


class ECKPN(Head):
    settings_class = ECKPNSettings
    light = True
    recipe = Recipe(
        steps=200,
        tasks=8,
        rate=1e-4,
        weight_decay=1e-5,
        query=10,
        mix=0.5,
        clip_norm=1.0,
        evaluate_every=25,
        patience=4,
        evaluate_episodes=200,
    )

    def __init__(self, inputs: Inputs, settings: ECKPNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        chosen: ECKPNSettings = self.settings
        _check(chosen)
        _, _, dim = inputs.one()
        self.positional = chosen.form == "positional"
        residual = chosen.start == "similarity"
        inward = dim + (inputs.way if self.positional else 0)
        learned = chosen.projection == "learned"
        nodes = chosen.width if learned else inward
        self.project = nn.Linear(inward, nodes, bias=False) if learned else None
        self.look: nn.Module = nn.Identity() if learned else _Look(nodes, chosen.width)
        if self.project is not None:
            nn.init.orthogonal_(self.project.weight, gain=max(inward / nodes, 1.0) ** 0.5)
        self.layers = nn.ModuleList(
            Comparison(
                nodes,
                chosen.width,
                chosen.heads,
                chosen.norm,
                residual,
                chosen.masks,
                chosen.blend,
                chosen.sharpness,
            )
            for _ in range(chosen.layers)
        )
        has_words = chosen.words and chosen.calibration and inputs.word_dim is not None
        self.word_map = WordMap(inputs.word_dim or 1, dim, chosen.width, residual) if has_words else None
        weight = chosen.word_weight if has_words else 0.0
        norm = chosen.norm
        self.calibration = (
            Calibration(nodes, chosen.width, norm, residual, weight) if chosen.calibration else None
        )
        propagates = chosen.squeeze or chosen.calibration
        self.combination = None
        if propagates and not self.positional:
            self.combination = Combination(nodes, chosen.width, norm, residual)
        self.scale = nn.Parameter(torch.tensor(chosen.sharpness if residual else 1 / nodes).log())
        self.assign = nn.Linear(nodes, inputs.way) if self.positional else None
        self.classify = nn.Linear(2 * nodes, inputs.way) if self.positional else None

    def forward(self, episodes: Episodes) -> Tensor:
        return self._run(episodes).logits

    def loss(self, episodes: Episodes) -> Losses:
        """Weighted sum of adjacency, assignment and classification losses.

        adjacency: over the layers, balanced binary cross-entropy of the raw edges of all pairs with a query.
        assignment: cross-entropy of the queries' assignment (in the positional form of all nodes').
        """
        graph = self._run(episodes)
        chosen: ECKPNSettings = self.settings
        label = _one_hot(episodes)
        present = _present(episodes)
        supports = label.shape[1] - episodes.queries
        named = label.sum(-1) > 0
        pair = (present & named)[:, supports:, None] & (present & named)[:, None, :]
        pair = pair & ~torch.eye(label.shape[1], dtype=torch.bool, device=label.device)[supports:]
        same = label[:, supports:] @ label.transpose(1, 2) > 0
        adjacency = torch.stack(
            [balanced_edge_loss(score[:, supports:], same, pair) for score in graph.scores]
        ).sum()
        target = episodes.query_label
        if self.positional:
            first = support_labels(episodes).masked_fill(~present[:, :supports], -1)
            target = torch.cat([first, target], 1) if target.ndim == 2 else label
        parts = {
            "adjacency": adjacency,
            "assignment": cross_entropy(graph.log_p, target),
            "classification": cross_entropy(graph.logits, episodes.query_label),
        }
        weights = (chosen.adjacency_weight, chosen.assignment_weight, chosen.classification_weight)
        total = torch.stack([weight * part for weight, part in zip(weights, parts.values())]).sum()
        return Losses(total, parts)

    def fit_base(self, base: FeatureBank) -> None:
        """Fit the regression from class words to class means, where words are used."""
        if self.word_map is None or base.words is None or base.multi:
            return
        table = next(iter(base.tables.values())).pooled()
        there = table.present
        member = F.one_hot(base.label[there], len(base.class_names)).to(torch.float32)
        count = member.sum(0)
        centre = member.T @ table.x[there, 0].float() / count.clamp(min=1)[:, None]
        self.word_map.fit(base.words[count > 0], centre[count > 0], self.settings.ridge)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        nodes = ways * shots + queries
        chosen: ECKPNSettings = self.settings
        pairs = nodes * (nodes - 1) // 2 * chosen.width * (8 if chosen.heads else 4)
        _, _, dim = self.inputs.one()
        return 4 * (pairs + 4 * nodes * nodes * (1 + chosen.heads) + 6 * nodes * dim)

    def _run(self, episodes: Episodes) -> _Graph:
        """All modules once; the weights' precision is used throughout."""
        support, query = single(episodes)
        ways, labels, present = episodes.ways, support_labels(episodes), _present(episodes)
        x = torch.cat([flat_support(support)[0], query.pooled()], 1).to(self.scale.dtype)
        unit = episode_unit(x, present)
        v = self._nodes(x * unit, episodes)
        adjacency = first_adjacency(labels, present, v.dtype)
        scores: list[Tensor] = []
        for layer in self.layers:
            v, adjacency, score = layer(v, self.look(v), adjacency, present)
            scores.append(score)
        log_p, p = self._assignment(scores[-1], adjacency @ v, labels, present, ways)
        known = support.present.any(2)
        supports = v[:, : len(labels)].unflatten(1, (ways, -1))
        centre = squeeze(p, v) if self.settings.squeeze else class_means(supports, support.present)[0]
        if self.calibration is not None:
            words, trust = self._words(episodes, unit)
            centre = self.calibration(centre, words, self.look, known, trust)
        logits = self._classify(v, p, centre, support.present)
        return _Graph(scores, log_p, neutral(logits, query.present, known))

    def _nodes(self, x: Tensor, episodes: Episodes) -> Tensor:
        """Node features [B, R, D] of x in episode units; the positional form adds label channels (1/N for queries)."""
        if self.positional:
            if episodes.ways != self.inputs.way:
                raise UsageError(
                    f"form=positional was built for {self.inputs.way} ways and got {episodes.ways}; use form=symmetric."
                )
            known = F.one_hot(support_labels(episodes), episodes.ways).to(x.dtype)
            unknown = x.new_full((episodes.queries, episodes.ways), 1 / episodes.ways)
            channels = torch.cat([known, unknown]).expand(len(x), -1, -1)
            x = torch.cat([x, channels * _present(episodes)[..., None].to(x.dtype)], -1)
        return x if self.project is None else self.project(x)

    def _assignment(
        self, score: Tensor, around: Tensor, labels: Tensor, present: Tensor, ways: int
    ) -> tuple[Tensor, Tensor]:
        """Log-assignment (of the queries; positional: of all nodes) and P [B, R, N]."""
        if self.assign is not None:
            log_p = F.log_softmax(self.assign(around), -1)
            return log_p, log_p.exp() * present[..., None].to(log_p.dtype)
        log_p = F.log_softmax(edge_votes(score, labels, present, ways), -1)
        return log_p, assignment(log_p.exp(), labels, present)

    def _words(self, episodes: Episodes, unit: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """E' [B, N, D] in node space, and whether the regression behind it was fitted; None without words."""
        if self.word_map is None or episodes.words is None:
            return None, None
        told = self.word_map(episodes.words.to(unit.dtype), unit)
        if self.positional:
            told = torch.cat([told, torch.eye(episodes.ways).to(told).expand(len(told), -1, -1)], -1)
        return (told if self.project is None else self.project(told)), self.word_map.fitted

    def _classify(self, v: Tensor, p: Tensor, centre: Tensor, support_present: Tensor) -> Tensor:
        """Logits [B, Q, N] from nodes v [B, R, D], P [B, R, N] and class nodes [B, N, D]."""
        ways, shots = support_present.shape[1:]
        supports = ways * shots
        if self.classify is not None:
            return self.classify(torch.cat([v, p @ centre], -1)[:, supports:])
        if self.combination is not None:
            z = self.combination(v, p @ centre)
            if self.settings.start == "none":
                centre = class_means(z[:, :supports].unflatten(1, (ways, shots)), support_present)[0]
            else:
                centre = self.combination(centre, centre)
            v = z
        return -self.scale.exp() * squared_distances(v[:, supports:], centre)


class _Look(nn.Module):
    """A frozen random rotation D -> C of which distances keep their expected size."""

    weight: Tensor

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        weight = nn.init.orthogonal_(torch.empty(nodes, width))
        self.register_buffer("weight", weight * max(nodes / width, 1.0) ** 0.5)

    def forward(self, v: Tensor) -> Tensor:
        return v @ self.weight


def balanced_edge_loss(score: Tensor, same: Tensor, pair: Tensor) -> Tensor:
    """Mean over same-class pairs plus mean over other pairs of the binary cross-entropy of sigmoid(score).

    score, same (bool: one class) and pair (bool: counts at all) share a shape.
    """
    each = F.binary_cross_entropy_with_logits(score, same.to(score.dtype), reduction="none")
    means = []
    for chosen in (pair & same, pair & ~same):
        weight = chosen.to(each.dtype)
        means.append((each * weight).sum() / weight.sum().clamp(min=1))
    return means[0] + means[1]


def _present(episodes: Episodes) -> Tensor:
    """Which nodes exist, bool [B, R]."""
    support, query = single(episodes)
    return torch.cat([support.present.flatten(1), query.present], 1)


def _one_hot(episodes: Episodes) -> Tensor:
    """Labels of all nodes [B, R, N], float; zero rows for padding."""
    label = episodes.query_label
    known = F.one_hot(support_labels(episodes), episodes.ways).expand(episodes.batch, -1, -1)
    if label.ndim == 2:
        label = F.one_hot(label.clamp(min=0), episodes.ways) * (label >= 0)[..., None]
    return torch.cat([known, label.to(known.dtype)], 1).float()


def _check(chosen: ECKPNSettings) -> None:
    """Raises UsageError for settings that do not fit together."""
    options = {
        "form": ("symmetric", "positional"),
        "projection": ("fixed", "learned"),
        "start": ("similarity", "none"),
        "norm": ("layer", "batch"),
    }
    for name, known in options.items():
        if getattr(chosen, name) not in known:
            raise UsageError(f"{name}={getattr(chosen, name)!r} is not known; use {' or '.join(known)}.")
    if chosen.layers < 1 or chosen.heads < 0 or chosen.width < 1:
        raise UsageError("ECKPN needs layers >= 1, heads >= 0 and width >= 1.")
    if chosen.heads and chosen.width % chosen.heads:
        raise UsageError(f"width={chosen.width} is not divisible by heads={chosen.heads}; choose a multiple.")
