"""The maximum-likelihood parameters of Dirichlet distributions, for many at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_SMALL = 1e-11  # below it the curvature is its limit, that of zero
_MOST = 1e4  # what Newton's steps let parameters sum to: those of samples that are all equal would grow without end
_CHECKED_EVERY = 50  # steps between two looks at convergence, as in the released code of EM-Dirichlet


def log_density(alpha: Tensor, logs: Tensor) -> Tensor:
    """log p(z_m | alpha_k), [B, M, N], of logarithms of samples [B, M, C] under parameters alpha [B, N, C]."""
    norm = torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1)
    return norm[:, None] + logs @ (alpha - 1).transpose(1, 2)


def most_likely(alpha: Tensor, logs: Tensor, *, steps: int, tolerance: float, newton: bool = False) -> Tensor:
    """The alpha [B, N, C] that maximise log Gamma(sum alpha) - sum log Gamma(alpha) + <alpha - 1, logs>.

    logs: the mean logarithms [B, N, C] of the samples of each distribution; alpha: where the search begins. A step
    maximises a lower bound that touches the likelihood (majorise-minimise, Martin et al., CVPR 2024), so none lowers
    it. An episode is done when a step changes its parameters by less than ``tolerance``, squared and relative, which is
    looked at after every fiftieth step; or after ``steps``. newton: take Newton's step (Minka, 2000) wherever that
    raises the likelihood, which needs some ten steps, and look after each, with the square of ``tolerance``.
    """
    if steps == 0 or not len(alpha):
        return alpha
    result, moving = alpha.clone(), torch.arange(len(alpha), device=alpha.device)
    full = torch.zeros_like(
        alpha[..., :1], dtype=torch.bool
    )  # which parameters have reached the most they may sum to
    tolerance = tolerance**2 if newton else tolerance
    for count in range(steps):
        before, alpha = alpha, _newton(alpha, logs) if newton else _bound_maximiser(alpha, logs)
        if newton:
            alpha = torch.where(full, before, alpha)
            full = alpha.sum(-1, keepdim=True) >= _MOST * (1 - 1e-9)
        if newton or (count and count % _CHECKED_EVERY == 0):
            change = (alpha - before).square().sum((1, 2)) / before.square().sum((1, 2))
            going = change >= tolerance
            result[moving[~going]] = alpha[~going]
            moving, alpha, logs, full = moving[going], alpha[going], logs[going], full[going]
            if not len(moving):
                return result
    result[moving] = alpha
    return result


def _newton(alpha: Tensor, logs: Tensor) -> Tensor:
    """Newton's step from alpha [..., C], or the bound's where Newton's does not raise the likelihood."""
    total = alpha.sum(-1, keepdim=True)
    slope = torch.digamma(total) - torch.digamma(alpha) + logs
    bend = torch.polygamma(1, alpha)
    shared = (slope / bend).sum(-1, keepdim=True)
    shared = shared / ((1 / bend).sum(-1, keepdim=True) - 1 / torch.polygamma(1, total))
    moved = alpha + (slope - shared) / bend
    inside = (moved > 0).all(-1, keepdim=True)
    moved = torch.where(inside, moved, alpha)
    better = inside[..., 0] & (_likelihood(moved, logs) >= _likelihood(alpha, logs))
    moved = torch.where(better[..., None], moved, _bound_maximiser(alpha, logs))
    return moved * (_MOST / moved.sum(-1, keepdim=True)).clamp(max=1)


def _likelihood(alpha: Tensor, logs: Tensor) -> Tensor:
    """What is maximised, [...], at alpha [..., C]."""
    norm = torch.lgamma(alpha.sum(-1)) - torch.lgamma(alpha).sum(-1)
    return norm + ((alpha - 1) * logs).sum(-1)


def _bound_maximiser(alpha: Tensor, logs: Tensor) -> Tensor:
    """One step from alpha [..., C]: the positive root of c a^2 + b a - 1, which every coordinate has for itself."""
    after = torch.digamma(alpha + 1)
    curvature = 2 * (after * alpha - torch.lgamma(alpha + 1)).abs() / alpha.square()
    curvature = torch.where(alpha > _SMALL, curvature, math.pi**2 / 6)
    b = after - torch.digamma(alpha.sum(-1, keepdim=True)) - curvature * alpha - logs
    return (torch.sqrt(b.square() + 4 * curvature) - b) / (2 * curvature)
