"""ECKPN's class graph: squeeze (instances to classes), calibration (classes among themselves and with their words),
and the combination of class knowledge with the instances.

B tasks, N ways, R nodes (supports class by class, then queries), D node width, C comparison width, E word width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .eckpn_graph import Relation, Update

_NEVER = -1e30


def edge_votes(score: Tensor, support_class: Tensor, present: Tensor, ways: int) -> Tensor:
    """Log of the mean raw edge sigmoid(f) of each query to the present supports of each class, [B, Q, N].

    score: f [B, R, R]; present: [B, R]. A class without supports has -1e30.
    """
    supports = len(support_class)
    one_hot = F.one_hot(support_class, ways).to(score.dtype)
    member = one_hot * present[:, :supports, None].to(score.dtype)
    log_edge = F.logsigmoid(score[:, supports:, :supports])[..., None].masked_fill(
        member[:, None] == 0, _NEVER
    )
    return torch.logsumexp(log_edge, 2) - member.sum(1).clamp(min=1).log()[:, None]


def assignment(query: Tensor, support_class: Tensor, present: Tensor) -> Tensor:
    """P [B, R, N]: supports belong to their class, queries as ``query`` [B, Q, N] says; absent nodes to none."""
    one_hot = F.one_hot(support_class, query.shape[-1]).to(query.dtype)
    rows = torch.cat([one_hot.expand(len(query), -1, -1), query], 1)
    return rows * present[..., None].to(query.dtype)


def squeeze(p: Tensor, v: Tensor) -> Tensor:
    """Class nodes [B, N, D]: means of the nodes v [B, R, D] weighted by the columns of p [B, R, N]."""
    return p.transpose(1, 2) @ v / p.sum(1).clamp(min=1e-12)[..., None]


class WordMap(nn.Module):
    """Class words E -> class features D: a ridge regression fitted to the base classes plus a learned two-layer part.

    The learned part is the published mapping network; with ``zero`` it starts at zero, on top of the regression.
    """

    mean: Tensor
    slope: Tensor
    offset: Tensor
    fitted: Tensor

    def __init__(self, words: int, nodes: int, hidden: int, zero: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(words, hidden), nn.Linear(hidden, nodes)
        if zero:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)
        self.register_buffer("mean", torch.zeros(words))
        self.register_buffer("slope", torch.zeros(words, nodes))
        self.register_buffer("offset", torch.zeros(nodes))
        self.register_buffer("fitted", torch.zeros(()))

    @torch.no_grad()
    def fit(self, words: Tensor, centre: Tensor, ridge: float) -> None:
        """Regress class means ``centre`` [C, D] on their words [C, E], both about their mean.

        The penalty is ``ridge`` times the mean squared length of a centred word vector.
        """
        words, centre = words.double(), centre.double()
        away = words - words.mean(0)
        gram = away @ away.T
        penalty = ridge * gram.diagonal().mean().clamp(min=1e-12)
        dual = torch.linalg.solve(
            gram + penalty * torch.eye(len(gram), dtype=gram.dtype, device=gram.device),
            centre - centre.mean(0),
        )
        self.mean.copy_(words.mean(0))
        self.slope.copy_(away.T @ dual)
        self.offset.copy_(centre.mean(0))
        self.fitted.fill_(1.0)

    def forward(self, words: Tensor, scale: Tensor) -> Tensor:
        """Words [B, N, E] in the units of each task's nodes; scale [B, 1, 1] is what features were multiplied by."""
        regression = (words - self.mean) @ self.slope + self.offset
        return regression * scale + self.second(F.leaky_relu(self.first(words)))


class Calibration(nn.Module):
    """Class nodes speak to each other: with U = [V_c || E'], a = row-normalised sigmoid(f_c((u_m - u_n)^2)),
    V_c' comes from a U W.

    residual: V_c' is V_c, drawn to its words by the share ``weight`` where their regression was fitted, plus
        an update that starts at zero; else the published lrelu(a U W).
    """

    def __init__(self, nodes: int, width: int, norm: str, residual: bool, weight: float) -> None:
        super().__init__()
        self.residual, self.weight = residual, weight
        self.relation = Relation(1, 2 * width, norm, zero=False)
        self.update = Update(2 * nodes, width, nodes, norm, zero=True) if residual else None
        self.mix = None if residual else nn.Linear(2 * nodes, nodes, bias=False)

    def forward(
        self, v: Tensor, words: Tensor | None, look: nn.Module, known: Tensor, trust: Tensor | None
    ) -> Tensor:
        """Calibrated class nodes [B, N, D].

        v: class nodes [B, N, D]; words: E' [B, N, D] or None; look: D -> C channels to compare;
        known: bool [B, N], classes with a node; trust: 0 or 1, whether E' alone already means something.
        """
        if self.weight == 0:
            words = None
        told = torch.zeros_like(v) if words is None else words
        u = torch.cat([v, told], -1)
        seen = torch.cat([look(v), look(told)], -1)
        score = self.relation(seen * (seen.shape[-1] / 2) ** 0.5)[:, 0]
        relation = torch.sigmoid(score) * known[:, None, :].to(v.dtype)
        relation = relation / relation.sum(-1, keepdim=True).clamp(min=1e-12)
        if self.update is None:
            assert self.mix is not None
            return F.leaky_relu(self.mix(relation @ u))
        if words is not None and trust is not None:
            v = v + self.weight * trust * (words - v)
        return v + self.update(relation @ u)


class Combination(nn.Module):
    """Class knowledge merged into instances: z from [v || P V_c'].

    residual: z = v plus an update that starts at zero; else the published linear map 2D -> D.
    """

    def __init__(self, nodes: int, width: int, norm: str, residual: bool) -> None:
        super().__init__()
        self.update = Update(2 * nodes, width, nodes, norm, zero=True) if residual else None
        self.mix = None if residual else nn.Linear(2 * nodes, nodes)

    def forward(self, v: Tensor, referred: Tensor) -> Tensor:
        """z [..., D] of nodes v [..., D] and the class nodes they refer to, P V_c' [..., D]."""
        both = torch.cat([v, referred], -1)
        if self.update is None:
            assert self.mix is not None
            return self.mix(both)
        return v + self.update(both)
