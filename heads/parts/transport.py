"""Entropic optimal transport between two clips' steps, of all their mass or of as much as pays (unbalanced)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LOGARITHMS_BELOW = 0.02  # below this softness exp(-cost / softness) leaves the range of float32


def transport_plan(
    cost: Tensor, row_mass: Tensor, column_mass: Tensor, *, softness: float, penalty: float, iterations: int
) -> Tensor:
    """The plan P [..., I, J] that minimises <P, cost> - softness H(P) + penalty (KL(P 1 | a) + KL(P^T 1 | b)).

    row_mass a: [..., I], column_mass b: [..., J]; steps without mass are left out. An infinite penalty is the balanced
    problem, whose plan has the marginals a and b. Scaling iterations (Chizat et al. 2018); where the softness is small
    they run in logarithms.
    """
    damping = 1.0 if math.isinf(penalty) else penalty / (penalty + softness)
    if softness < LOGARITHMS_BELOW:
        return _by_logarithms(cost / softness, row_mass, column_mass, damping, iterations)
    # Steps go before pairs of clips, so that each operation runs over all pairs at once.
    kernel = (-cost / softness).exp().movedim((-2, -1), (0, 1)).contiguous()
    rows, columns = row_mass.movedim(-1, 0), column_mass.movedim(-1, 0)
    column = torch.ones_like(kernel[0])
    row = torch.ones_like(kernel[:, 0])
    for _ in range(iterations):
        row = _scaling(rows, (kernel * column).sum(1), damping)
        column = _scaling(columns, (kernel * row[:, None]).sum(0), damping)
    return (row[:, None] * kernel * column).movedim((0, 1), (-2, -1))


def _scaling(mass: Tensor, reached: Tensor, damping: float) -> Tensor:
    """(mass / reached) ** damping, and 0 where there is no mass."""
    counted = mass > 0
    ratio = torch.where(counted, mass, 1.0) / torch.where(counted, reached, 1.0).clamp(min=1e-30)
    return torch.where(counted, ratio**damping, 0.0)


def _by_logarithms(
    cost: Tensor, row_mass: Tensor, column_mass: Tensor, damping: float, iterations: int
) -> Tensor:
    """As transport_plan, of a cost that was divided by the softness."""
    low = torch.finfo(cost.dtype).min / 4
    log_row, log_column = (torch.where(m > 0, m.clamp(min=1e-30).log(), low) for m in (row_mass, column_mass))
    row, column = torch.zeros_like(log_row), torch.zeros_like(log_column).masked_fill(column_mass == 0, low)
    for _ in range(iterations):
        row = damping * (log_row - (column[..., None, :] - cost).logsumexp(-1))
        row = row.masked_fill(row_mass == 0, low)
        column = damping * (log_column - (row[..., None] - cost).logsumexp(-2))
        column = column.masked_fill(column_mass == 0, low)
    return (row[..., None] + column[..., None, :] - cost).exp()
