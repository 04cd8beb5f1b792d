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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.losses import cross_entropy, targets
from ..parts.ridge_map import without_each
from ..parts.tensors import class_means, flat_support, single, support_labels
from ..settings import Recipe
from .blocks import balanced_mean
from .eckpn_choice import Choice, Trial, choose
from .eckpn_class import Calibration, Combination, WordMap, assignment, edge_votes, squeeze
from .eckpn_graph import Comparison, episode_unit, first_adjacency
from .eckpn_settings import MASS, ECKPNSettings, Rule


@dataclass
class _Graph:
    """What one pass computes.

    scores: every layer's edge scores f [B, R, R]; log_p: the log-assignment of the queries [B, Q, N], in the positional
    form of all nodes [B, R, N]; logits [B, Q, N].
    """

    scores: list[Tensor]
    log_p: Tensor
    logits: Tensor


class ECKPN(Head[ECKPNSettings]):
    Settings = ECKPNSettings
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

    def __init__(self, inputs: Inputs, settings: ECKPNSettings) -> None:
        super().__init__(inputs, settings)
        dim, way, width = inputs.one()[2], inputs.way, settings.width
        self.positional = settings.form == "positional"
        inward = dim + way if self.positional else dim
        learned = settings.projection == "learned"
        nodes = width if learned else inward
        self.project = nn.Linear(inward, nodes, bias=False) if learned else None
        self.look: nn.Module = nn.Identity() if learned else FrozenRotation(nodes, width)
        if self.project is not None:
            nn.init.orthogonal_(self.project.weight, gain=max(inward / nodes, 1.0) ** 0.5)
        self.word_map: WordMap | None = None
        if settings.reads_words and inputs.word_dim is not None:
            self.word_map = WordMap(inputs.word_dim, dim, width, zero_init=settings.residual)
        self.choice = Choice(rule=settings.rules(has_words=self.word_map is not None)[0])
        self.comparisons = [Comparison(nodes, settings, self.rule) for _ in range(settings.layers)]
        self.layers = nn.ModuleList(self.comparisons)
        self.calibration: Calibration | None = None
        if settings.calibration:
            self.calibration = Calibration(nodes, settings, self.rule)
        combines = (settings.squeeze or settings.calibration) and not self.positional
        self.combination = Combination(nodes, settings) if combines else None
        self.scale = nn.Parameter(torch.tensor(self.rule.sharpness if settings.residual else 1 / nodes).log())
        self.assign = nn.Linear(nodes, way) if self.positional else None
        self.classify = nn.Linear(2 * nodes, way) if self.positional else None

    def forward(self, episodes: Episodes) -> Tensor:
        return self._run(episodes).logits

    def loss(self, episodes: Episodes) -> Losses:
        """The weighted sum of adjacency, assignment and classification losses.

        adjacency: over the layers, the balanced binary cross-entropy of the raw edges of all pairs with a query.
        assignment: the cross-entropy of the queries' assignment (in the positional form of all nodes').
        """
        graph, own = self._run(episodes), self.settings
        target = self._assignment_target(episodes)
        parts = {
            "adjacency": _adjacency_loss(graph.scores, episodes),
            "assignment": cross_entropy(graph.log_p, target),
            "classification": cross_entropy(graph.logits, episodes.query_label),
        }
        weights = (own.adjacency_weight, own.assignment_weight, own.classification_weight)
        total = torch.stack([weight * part for weight, part in zip(weights, parts.values())]).sum()
        return Losses(total, parts)

    def _assignment_target(self, episodes: Episodes) -> Tensor:
        """The labels of the nodes whose assignment is scored, those of the queries or of all; -1 for absent nodes."""
        if not self.positional:
            return episodes.query_label
        if episodes.multi:
            return _one_hot(episodes)
        present = _present(episodes)[:, : episodes.ways * episodes.shots]
        first = support_labels(episodes).masked_fill(~present, -1)
        return torch.cat([first, episodes.query_label], 1)

    @property
    def rule(self) -> Rule:
        """The training-free rule that the head starts from."""
        return self.choice.rule

    def fit_base(self, base: FeatureBank) -> None:
        """Fits the regression from class words to class means, and chooses the rule to start from where it may."""
        if base.multi:
            return
        base = base.pooled()
        (table,) = base.tables.values()
        if not table.all_present:
            base = base.rows(np.flatnonzero(table.present.cpu().numpy()))
        images = None if self.word_map is None else self._fit_words(self.word_map, base)
        rules = self.settings.rules(has_words=images is not None)
        if len(rules) > 1:
            trial = Trial(
                way=self.inputs.way,
                shot=self.inputs.shot,
                layers=self.settings.layers,
                masks=self.settings.masks,
                place=self.project or nn.Identity(),
                word_images=images,
            )
            self._start_from(choose(base, rules, trial))

    def _fit_words(self, words: WordMap, base: FeatureBank) -> Tensor | None:
        """Fit the regression, and give what it says of each class without having seen it, [C, D].

        None is given where there are no words or no clips. base: the clips that are present, one step each.
        """
        if base.words is None or not len(base):
            return None
        (table,) = base.tables.values()
        x = table.gather(torch.arange(len(base), device=base.device)).pooled().float()
        member = F.one_hot(base.label, len(base.class_names)).to(x.dtype)
        count = member.sum(0)
        centre = (member.T @ x / count.clamp(min=1)[:, None])[count > 0]
        words.fit(base.words[count > 0], centre, self.settings.ridge)
        images = x.new_zeros(len(count), x.shape[1])
        images[count > 0] = without_each(base.words[count > 0], centre, self.settings.ridge)
        return images

    def _start_from(self, choice: Choice) -> None:
        """Set the training-free rule from which training starts, in the weights and beside them."""
        self._take(choice)
        for layer in self.comparisons:
            layer.start_from(choice.rule)
        if self.settings.residual:
            nn.init.constant_(self.scale, math.log(choice.rule.sharpness))

    def _take(self, choice: Choice) -> None:
        """Set what is chosen once and never learned."""
        self.choice = choice
        for layer in self.comparisons:
            layer.blend = choice.rule.blend
        if self.calibration is not None:
            self.calibration.word_weight = choice.rule.word_weight

    def chosen(self) -> dict[str, Any]:
        """The rule that base classes chose, and the gain on them that speaks for it."""
        if len(self.settings.rules(has_words=self.word_map is not None)) == 1:
            return {}
        return self.choice.to_dict()

    def notes(self) -> list[str]:
        """A sentence where the rule uses nothing of the queries and words, or base classes could not choose."""
        return self.choice.notes() if self.chosen() else []

    def get_extra_state(self) -> Tensor:
        """The rule as numbers, which a checkpoint holds."""
        return self.choice.to_tensor()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the rule of a checkpoint, whose weights are loaded beside it."""
        self._take(Choice.from_tensor(state))

    def _run(self, episodes: Episodes) -> _Graph:
        """What all modules compute; the weights' precision is used throughout."""
        support, query = single(episodes)
        ways, labels, present = episodes.ways, support_labels(episodes), _present(episodes)
        x = torch.cat([flat_support(support)[0], query.pooled()], 1).to(self.scale.dtype)
        unit = episode_unit(x, present)
        v = self._nodes(x * unit, episodes)
        adjacency = first_adjacency(labels, present, v.dtype)
        scores: list[Tensor] = []
        for layer in self.comparisons:
            v, adjacency, score = layer(v, self.look(v), adjacency, present)
            scores.append(score)
        log_p, p = self._assignment(scores[-1], adjacency @ v, labels, present, ways)
        class_present = support.present.any(2)
        supports = v[:, : len(labels)].unflatten(1, (ways, -1))
        centre = class_means(supports, support.present)[0]
        if self.settings.squeeze:
            centre = squeeze(p, v, len(labels), MASS[self.rule.query_mass])
        if self.calibration is not None:
            words, fitted = self._words(episodes, unit)
            centre = self.calibration(
                centre, words, compared=self.look, class_present=class_present, fitted=fitted
            )
        logits = self._classify(v, p, centre, support.present)
        return _Graph(scores, log_p, neutral(logits, query.present, class_present))

    def _nodes(self, x: Tensor, episodes: Episodes) -> Tensor:
        """The node features [B, R, D] of x in episode units; the positional form adds label channels (1/N for queries).

        Raises UsageError where the positional form meets another number of classes than it was built for.
        """
        if self.positional:
            if episodes.ways != self.inputs.way:
                raise UsageError(
                    f"form=positional was built for {self.inputs.way} ways and got {episodes.ways}; use form=symmetric."
                )
            of_supports = F.one_hot(support_labels(episodes), episodes.ways).to(x.dtype)
            of_queries = x.new_full((episodes.queries, episodes.ways), 1 / episodes.ways)
            channels = torch.cat([of_supports, of_queries]).expand(len(x), -1, -1)
            x = torch.cat([x, channels * _present(episodes)[..., None].to(x.dtype)], -1)
        return x if self.project is None else self.project(x)

    def _assignment(
        self, score: Tensor, around: Tensor, labels: Tensor, present: Tensor, ways: int
    ) -> tuple[Tensor, Tensor]:
        """The log-assignment of the queries [B, Q, N] (positional: of all nodes [B, R, N]) and P [B, R, N].

        score: the last edge scores [B, R, R]; around: what each node gathers from its neighbours [B, R, D].
        """
        if self.assign is not None:
            log_p = F.log_softmax(self.assign(around), -1)
            return log_p, log_p.exp() * present[..., None].to(log_p.dtype)
        log_p = F.log_softmax(edge_votes(score, labels, present, ways), -1)
        return log_p, assignment(log_p.exp(), labels, present)

    def _words(self, episodes: Episodes, unit: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """E' [B, N, D] in node space, and whether the regression behind it was fitted; None without words."""
        if self.word_map is None or episodes.words is None:
            return None, None
        mapped = self.word_map(episodes.words.to(unit.dtype), unit)
        if self.positional:
            mapped = torch.cat([mapped, torch.eye(episodes.ways).to(mapped).expand(len(mapped), -1, -1)], -1)
        return (mapped if self.project is None else self.project(mapped)), self.word_map.fitted

    def _classify(self, v: Tensor, p: Tensor, centre: Tensor, support_present: Tensor) -> Tensor:
        """The logits [B, Q, N] from nodes v [B, R, D], P [B, R, N] and class nodes [B, N, D]."""
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


class FrozenRotation(nn.Module):
    """A frozen random rotation [..., D] -> [..., C] of which distances keep their expected size."""

    weight: Tensor

    def __init__(self, nodes: int, width: int) -> None:
        super().__init__()
        weight = nn.init.orthogonal_(torch.empty(nodes, width))
        self.register_buffer("weight", weight * max(nodes / width, 1.0) ** 0.5)

    def forward(self, v: Tensor) -> Tensor:
        return v @ self.weight


def _adjacency_loss(scores: Sequence[Tensor], episodes: Episodes) -> Tensor:
    """The sum over layers of the balanced loss of the edges between a query and any other node; scores [B, R, R]."""
    label, present = _one_hot(episodes), _present(episodes)
    supports = label.shape[1] - episodes.queries
    counted = present & (label.sum(-1) > 0)
    pair = counted[:, supports:, None] & counted[:, None, :]
    pair = pair & ~torch.eye(label.shape[1], dtype=torch.bool, device=label.device)[supports:]
    same = label[:, supports:] @ label.transpose(1, 2) > 0
    return torch.stack([balanced_edge_loss(score[:, supports:], same, pair) for score in scores]).sum()


def balanced_edge_loss(score: Tensor, same: Tensor, pair: Tensor) -> Tensor:
    """The mean over same-class pairs plus the mean over other pairs of the binary cross-entropy of sigmoid(score).

    score, same (bool: one class) and pair (bool: counts at all) share a shape.
    """
    each = F.binary_cross_entropy_with_logits(score, same.to(score.dtype), reduction="none")
    return balanced_mean(each, same, pair)


def _present(episodes: Episodes) -> Tensor:
    """Which nodes are present, bool [B, R]."""
    support, query = single(episodes)
    return torch.cat([support.present.flatten(1), query.present], 1)


def _one_hot(episodes: Episodes) -> Tensor:
    """The labels of all nodes, float [B, R, N]; rows of zeros for queries that do not exist."""
    support = F.one_hot(support_labels(episodes), episodes.ways).expand(episodes.batch, -1, -1)
    query = targets(episodes, support.dtype)[0]
    return torch.cat([support, query], 1).float()
