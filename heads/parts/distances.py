"""Distances and similarities of pooled features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def squared_distances(query: Tensor, centre: Tensor) -> Tensor:
    """Squared distances |q - c|^2, [B, Q, N], of queries [B, Q, D] and centres [B, N, D], by one batched product."""
    product = torch.matmul(query, centre.transpose(-1, -2))
    return (query.square().sum(-1)[..., None] - 2 * product + centre.square().sum(-1)[..., None, :]).clamp(
        min=0
    )


def cosine(a: Tensor, b: Tensor, epsilon: float = 0.0) -> Tensor:
    """Cosines <a, b> / (|a||b| + epsilon), [..., I, J], of all pairs of a [..., I, D] and b [..., J, D].

    The products are divided, not the vectors: no copy of the many features. A zero vector has cosine 0.
    """
    norms = a.norm(dim=-1)[..., :, None] * b.norm(dim=-1)[..., None, :]
    norms, product = norms + epsilon if epsilon else norms.clamp(min=1e-12), a @ b.transpose(-1, -2)
    return product / norms if product.requires_grad else product.div_(norms)


def cosine_to(x: Tensor, w: Tensor, shift: Tensor | None = None) -> Tensor:
    """Cosines [B, M, N] of x + shift and w, of x [B, M, D], w [B, N, D] and shift [B, D].

    The many x are neither copied nor changed: shifted products and lengths follow from products with the shift.
    """
    w = F.normalize(w, dim=-1)
    if shift is None:
        return (x @ w.transpose(1, 2)) / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    gap = shift[:, None]
    product = x @ torch.cat([w, gap], 1).transpose(1, 2)
    square = (
        x.norm(dim=-1, keepdim=True).square() + 2 * product[..., -1:] + gap.square().sum(-1, keepdim=True)
    )
    return (product[..., :-1] + gap @ w.transpose(1, 2)) / square.clamp(min=1e-24).sqrt()


def squared_distance_to(x: Tensor, w: Tensor) -> Tensor:
    """Squared distances [B, M, N] of x [B, M, D] and w [B, N, D], without a squared copy of the many x.

    Unlike :func:`squared_distances` it takes each length by a norm; the two agree up to rounding.
    """
    square = x.norm(dim=-1, keepdim=True).square() + w.square().sum(-1)[:, None]
    return torch.baddbmm(square, x, w.transpose(1, 2), alpha=-2.0).clamp(min=0)
