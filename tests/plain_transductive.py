"""alpha-TIM and EM-Dirichlet once more, for one task at a time, from their published equations.

Shapes: supports s [N, K, D], queries q [Q, D], class words t [N, D].
"""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-15


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def tsallis(p: Tensor, alpha: float) -> Tensor:
    """H_a(p) = (1 - sum_c p_c^a) / (a - 1)."""
    return (1 - (p**alpha).sum(-1)) / (alpha - 1)


def alpha_tim(s: Tensor, q: Tensor, *, steps: int, rate: float) -> Tensor:
    """alpha-TIM's logits but for |x|^2, which is the same for every class."""
    x, asked, (ways, shots) = unit(s), unit(q), s.shape[:2]
    alpha = {1: 2.0}.get(shots, 7.0 if shots >= 5 else 5.0)
    label = torch.arange(ways).repeat_interleave(shots)
    w = x.mean(1).requires_grad_()

    def logits(a: Tensor) -> Tensor:
        return -7.5 * (a[:, None] - w[None]).square().sum(-1)

    optimiser = torch.optim.Adam([w], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        own = torch.softmax(logits(x.flatten(0, 1)), -1)[torch.arange(len(label)), label]
        p = torch.softmax(logits(asked), -1)
        entropy = tsallis(p.mean(0), alpha)
        loss = -(own + 1e-12).log().mean() - entropy + tsallis(p + 1e-12, alpha).mean()
        loss.backward()
        optimiser.step()
    return (logits(asked) + 7.5 * asked.square().sum(-1, keepdim=True)).detach()


def most_likely(alpha: Tensor, y: Tensor, steps: int) -> Tensor:
    """The published majorise-minimise steps of one Dirichlet distribution's parameters [C]."""
    for _ in range(steps):
        c = (2 * (-torch.lgamma(alpha + 1) + torch.digamma(alpha + 1) * alpha) / alpha**2).abs()
        b = torch.digamma(alpha + 1) - torch.digamma(alpha.sum()) - c * alpha - y
        alpha = (-b + torch.sqrt(b**2 + 4 * c)) / (2 * c)
    return alpha


def em_dirichlet(
    s: Tensor, q: Tensor, t: Tensor, *, hard: bool, rounds: int, steps: int, effective: int
) -> Tensor:
    """The class of each query; s may have no supports."""
    ways, shots = s.shape[:2]
    z = torch.softmax(30 * unit(q) @ unit(t).T, -1)
    seen = torch.softmax(30 * unit(s) @ unit(t).T, -1) if shots else z.new_zeros(ways, 0, ways)
    u, alpha = z.clone(), torch.ones(ways, ways).to(z)
    logs, seen_logs = (z + TINY).log(), (seen + TINY).log()
    for _ in range(rounds):
        for k in range(ways):
            mass = shots + u[:, k].sum()
            if mass <= TINY:
                continue  # an empty cluster keeps its parameters
            y = (seen_logs[k].sum(0) + u[:, k] @ logs) / mass
            alpha[k] = most_likely(alpha[k].clone(), y, steps)
        v = (u.mean(0) + TINY).log() + 1
        score = torch.stack(
            [
                torch.lgamma(a.sum()) - torch.lgamma(a).sum() + logs @ (a - 1) + (ways // effective) * v[k]
                for k, a in enumerate(alpha)
            ],
            1,
        )
        u = torch.softmax(score, -1)
        u = F.one_hot(u.argmax(-1), ways).to(z) if hard else u
    cluster = score.argmax(-1)
    if shots:
        return cluster
    used = sorted(set(cluster.tolist()))
    value = torch.stack([z[cluster == k].mean(0) for k in used])
    rows, columns = linear_sum_assignment(value.numpy(), maximize=True)
    named = {used[row]: int(column) for row, column in zip(rows, columns)}
    return torch.tensor([named[int(k)] for k in cluster])
