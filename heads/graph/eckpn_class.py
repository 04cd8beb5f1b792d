"""ECKPN's class graph: squeeze (instances to classes), calibration (classes among themselves and with their words),
and the combination of class knowledge with the instances.

In shapes B is the number of tasks, N that of classes, R that of nodes (supports class by class, then queries), D the
width of nodes, C that of what is compared, and E that of class words.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..parts.ridge_map import ridge_map
from .eckpn_graph import LOG_NO_EDGE, Relation, Update
from .eckpn_settings import ECKPNSettings, Rule


def edge_votes(score: Tensor, support_class: Tensor, present: Tensor, ways: int) -> Tensor:
    """The log of the mean raw edge sigmoid(f) of each query to the present supports of each class, [B, Q, N].

    score: f [B, R, R]; support_class: int64 [N*K]; present: bool [B, R]. A class without supports has -1e30.
    """
    supports = len(support_class)
    one_hot = F.one_hot(support_class, ways).to(score.dtype)
    member = one_hot * present[:, :supports, None].to(score.dtype)
    log_edge = F.logsigmoid(score[:, supports:, :supports])[..., None]
    log_edge = log_edge.masked_fill(member[:, None] == 0, LOG_NO_EDGE)
    return torch.logsumexp(log_edge, 2) - member.sum(1).clamp(min=1).log()[:, None]


def assignment(query: Tensor, support_class: Tensor, present: Tensor) -> Tensor:
    """The assignment P [B, R, N] of nodes: supports belong to their class, queries as ``query`` [B, Q, N] says.

    Absent nodes belong to no class. support_class: int64 [N*K]; present: bool [B, R].
    """
    one_hot = F.one_hot(support_class, query.shape[-1]).to(query.dtype)
    rows = torch.cat([one_hot.expand(len(query), -1, -1), query], 1)
    return rows * present[..., None].to(query.dtype)


def class_weights(p: Tensor, supports: int, query_mass: float) -> Tensor:
    """The weights [B, R, N] of all nodes in each class node; every column sums to one where the class has a node.

    p: the assignment [B, R, N]; supports: the number of nodes that are supports; query_mass: the queries of a class
    weigh at most this many times as much as its supports.
    """
    of_supports, of_queries = p[:, :supports], p[:, supports:]
    bound = query_mass * of_supports.sum(1, keepdim=True)
    of_queries = of_queries * (bound / of_queries.sum(1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
    weight = torch.cat([of_supports, of_queries], 1)
    return weight / weight.sum(1, keepdim=True).clamp(min=1e-12)


def squeeze(p: Tensor, v: Tensor, supports: int, query_mass: float) -> Tensor:
    """The class nodes [B, N, D]: means of the nodes v [B, R, D], by their ``class_weights``."""
    return class_weights(p, supports, query_mass).transpose(1, 2) @ v


class WordMap(nn.Module):
    """Class words to class features: a ridge regression fitted to base classes, plus two learned layers.

    The layers are the published mapping network; with ``zero_init`` they start at zero, on top of the regression.
    """

    mean: Tensor
    slope: Tensor
    offset: Tensor
    fitted: Tensor

    def __init__(self, words: int, nodes: int, hidden: int, *, zero_init: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(words, hidden), nn.Linear(hidden, nodes)
        if zero_init:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)
        self.register_buffer("mean", torch.zeros(words))
        self.register_buffer("slope", torch.zeros(words, nodes))
        self.register_buffer("offset", torch.zeros(nodes))
        self.register_buffer("fitted", torch.zeros(()))

    @torch.no_grad()
    def fit(self, words: Tensor, centre: Tensor, ridge: float) -> None:
        """Regress class means ``centre`` [C, D] on their words [C, E], as :func:`ridge_map` does."""
        mean, slope = ridge_map(words, centre, ridge)
        self.mean.copy_(mean)
        self.slope.copy_(slope)
        self.offset.copy_(centre.double().mean(0))
        self.fitted.fill_(1.0)

    def forward(self, words: Tensor, scale: Tensor) -> Tensor:
        """The features [B, N, D] of words [B, N, E], times each task's scale [B, 1, 1] of nodes."""
        regression = (words - self.mean) @ self.slope + self.offset
        return regression * scale + self.second(F.leaky_relu(self.first(words)))


class Calibration(nn.Module):
    """Class nodes speak to each other, by relations of U = [V_c || E'], E' what the words say class nodes are.

    With a = the row-normalised sigmoid(f_c((u_m - u_n)^2)), the published calibrated nodes V_c' are lrelu(a U W). With
    ``settings.residual`` V_c' is V_c, drawn to its words by the rule's share ``word_weight`` where their regression was
    fitted, plus an update from a U that starts at zero.
    """

    def __init__(self, nodes: int, settings: ECKPNSettings, rule: Rule) -> None:
        super().__init__()
        self.word_weight = rule.word_weight
        self.relation = Relation(1, 2 * settings.width, settings.norm, zero_init=False)
        self.update: Update | None = None
        self.mix: nn.Linear | None = None
        if settings.residual:
            self.update = _update_of_pairs(nodes, settings)
        else:
            self.mix = nn.Linear(2 * nodes, nodes, bias=False)

    def forward(
        self,
        v: Tensor,
        words: Tensor | None,
        compared: nn.Module,
        class_present: Tensor,
        fitted: Tensor | None,
    ) -> Tensor:
        """The calibrated class nodes [B, N, D].

        v: class nodes [B, N, D]; words: E' [B, N, D] or None; compared: maps nodes [..., D] to the channels [..., C] to
        compare; class_present: bool [B, N], classes with a node; fitted: 0 or 1, whether E' already means something
        without training.
        """
        if self.word_weight == 0:
            words = None
        from_words = torch.zeros_like(v) if words is None else words
        u = torch.cat([v, from_words], -1)
        seen = torch.cat([compared(v), compared(from_words)], -1)
        score = self.relation(seen * (seen.shape[-1] / 2) ** 0.5)[:, 0]
        relation = torch.sigmoid(score) * class_present[:, None, :].to(v.dtype)
        relation = relation / relation.sum(-1, keepdim=True).clamp(min=1e-12)
        if self.mix is not None:
            return F.leaky_relu(self.mix(relation @ u))
        if words is not None and fitted is not None:
            v = v + self.word_weight * fitted * (words - v)
        return v if self.update is None else v + self.update(relation @ u)


class Combination(nn.Module):
    """Class knowledge merged into instances: z from [v || P V_c'], by the published linear map 2D -> D.

    With ``settings.residual`` z is v plus an update that starts at zero.
    """

    def __init__(self, nodes: int, settings: ECKPNSettings) -> None:
        super().__init__()
        self.update: Update | None = None
        self.mix: nn.Linear | None = None
        if settings.residual:
            self.update = _update_of_pairs(nodes, settings)
        else:
            self.mix = nn.Linear(2 * nodes, nodes)

    def forward(self, v: Tensor, referred: Tensor) -> Tensor:
        """z [..., D] of nodes v [..., D] and the class nodes that they refer to, P V_c' [..., D]."""
        both = torch.cat([v, referred], -1)
        if self.mix is not None:
            return self.mix(both)
        return v if self.update is None else v + self.update(both)


def _update_of_pairs(nodes: int, settings: ECKPNSettings) -> Update:
    """An update of nodes [..., D] from two of them side by side, that starts at zero."""
    return Update(inward=2 * nodes, hidden=settings.width, outward=nodes, norm=settings.norm, zero_init=True)
