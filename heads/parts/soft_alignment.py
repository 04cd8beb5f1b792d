"""Ordered alignment of two sequences by the cheapest path through the matrix of their distances.

Shapes: R and C are the steps of the two sequences that are compared; pairs of clips lie on the trailing axes, so that
one vector operation serves every pair of every task.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def alignment(
    distance: Tensor, gamma: float, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Cost of the best ordered path through distance [R, C, *pairs], -> [*pairs] (Cao et al., OTAM, CVPR 2020).

    A path may begin and end at any row (a zero column is understood on either side) and reads

        cost[i, j] = distance[i, j] + softmin(cost[i-1, j-1], cost[i, j-1]),  1 < j,

    with softmin(v) = -gamma log sum exp(-v / gamma), or the plain minimum for gamma = 0. Row 0 has one predecessor
    only, so it is a running sum. Within a column nothing depends on the column itself: the recursion is C steps of one
    vector operation, and the two outer columns have closed forms. The sums are taken in logarithms throughout.
    rows, columns: int64 that broadcast to [*pairs], how many steps of each pair count (at least one); None: all.
    """
    soft = gamma > 0
    score = distance * (-1 / gamma if soft else -1)
    column = kept = _first_column(score, soft=soft)
    for j in range(1, score.shape[1]):
        onward = _soft_minimum(column[:-1], column[1:], soft=soft)
        column = score[:, j] + torch.cat([column[:1], onward])
        kept = column if columns is None else torch.where(columns > j, column, kept)
    ended = kept + _ways_to_end(kept, rows, soft=soft)
    return -gamma * ended.logsumexp(0) if soft else -ended.amax(0)


def _soft_minimum(a: Tensor, b: Tensor, *, soft: bool) -> Tensor:
    """The soft minimum of two costs that are given, and returned, as scores: -cost / gamma, or -cost for the hard one.

    On that scale -gamma log(exp(-v / gamma) + exp(-w / gamma)) is the logarithm of a sum of two exponentials, and the
    least cost is the greatest score.
    """
    return torch.logaddexp(a, b) if soft else torch.maximum(a, b)


def _first_column(score: Tensor, *, soft: bool) -> Tensor:
    """[R, *pairs]: a row follows the row above, or begins anew (from two cells of the zero column, hence log 2)."""
    anew = torch.full((), math.log(2) if soft else 0.0, dtype=score.dtype, device=score.device)
    cells = [score[0, 0]]
    for i in range(1, score.shape[0]):
        cells.append(score[i, 0] + _soft_minimum(cells[-1], anew, soft=soft))
    return torch.stack(cells)


def _ways_to_end(last: Tensor, rows: Tensor | None, *, soft: bool) -> Tensor:
    """Logarithm of how many ways lead from each row of the last column to the end: two, from the last row one."""
    steps = last.shape[0]
    row = torch.arange(steps, device=last.device).view(-1, *[1] * (last.ndim - 1))
    end = (torch.full_like(row, steps) if rows is None else rows) - 1
    ways = torch.zeros_like(row, dtype=last.dtype).masked_fill(row < end, math.log(2) if soft else 0.0)
    return ways.masked_fill(row > end, -math.inf)


def backwards(distance: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """distance [R, C, *pairs] with both sequences played backwards, each from its own last step."""
    if rows is None or columns is None:
        return distance.flip(0, 1)
    for axis, length in ((0, rows), (1, columns)):
        step = torch.arange(distance.shape[axis], device=distance.device)
        step = step.view(*[1] * axis, -1, *[1] * (distance.ndim - 1 - axis))
        turned = torch.where(step < length, length - 1 - step, step)
        distance = torch.gather(distance, axis, turned.expand_as(distance))
    return distance
