"""Matchings: how alike two clips are, from the similarities of all pairs of their steps (or tuples of steps).

Shapes: similarities are [..., I, J], I query rows and J support columns; rows is bool [..., I] and columns bool
[..., J], which of them count. Every matching gives [...], and 0 where no row or no column counts.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from .set_matching import side_distance
from .soft_alignment import alignment


def mean_match(similarity: Tensor, rows: Tensor, columns: Tensor, *, summed: bool = False) -> Tensor:
    """The mean similarity; summed: the mean over the rows of the sum over the columns, J times as much."""
    weight = rows.to(similarity.dtype)[..., None, :] @ similarity
    total = (weight.squeeze(-2) * columns).sum(-1) / rows.sum(-1).clamp(min=1)
    return total if summed else total / columns.sum(-1).clamp(min=1)


def max_match(similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The greatest similarity."""
    counted = rows[..., None] & columns[..., None, :]
    best = similarity.masked_fill(~counted, torch.finfo(similarity.dtype).min).amax((-1, -2))
    return torch.where(counted.any(-1).any(-1), best, torch.zeros_like(best))


def diagonal_match(similarity: Tensor) -> Tensor:
    """The mean similarity of the steps of the same number; all steps count, and I = J."""
    return similarity.diagonal(dim1=-2, dim2=-1).mean(-1)


def aligned_match(similarity: Tensor, rows: Tensor, columns: Tensor, gamma: float) -> Tensor:
    """Minus half the costs of the two ordered alignments of OTAM, along the columns and along the rows."""
    distance = (1 - similarity).movedim((-2, -1), (0, 1))
    row_steps, column_steps = rows.sum(-1).clamp(min=1), columns.sum(-1).clamp(min=1)
    if bool((row_steps == rows.shape[-1]).all()) and bool((column_steps == columns.shape[-1]).all()):
        costs = alignment(distance, gamma) + alignment(distance.transpose(0, 1), gamma)
    else:
        forth = alignment(distance, gamma, row_steps, column_steps)
        costs = forth + alignment(distance.transpose(0, 1), gamma, column_steps, row_steps)
    return -costs / 2


def chamfer_match(similarity: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The mean over the rows of the similarity to the most similar column."""
    return -side_distance(-similarity, rows, columns, average=True)


def masked_last_mean(x: Tensor, counted: Tensor) -> Tensor:
    """The mean [...] over the last axis of x [..., P] of what is counted, bool [..., P]; 0 where nothing is."""
    if bool(counted.all()):
        return x.mean(-1)
    return torch.where(counted, x, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)


def best_ordered(similarity: Tensor, size: int) -> Tensor:
    """For every ordered tuple of rows the greatest sum of similarities to an ordered tuple of columns.

    similarity: [I, J, *pairs], I and J at least ``size``. Returns [P, *pairs], P = I choose ``size``, lexicographic.
    The best partner of a tuple's first n steps that ends at column j or before is kept for every j, so that the next
    step asks each column once: J sums a tuple instead of one for every tuple of columns.
    """
    rows, columns = similarity.shape[:2]
    tuples: list[tuple[int, ...]] = [(i,) for i in range(rows)]
    best = similarity
    for n in range(1, size):
        longer: list[tuple[int, ...]] = list(combinations(range(rows), n + 1))
        number = {steps: p for p, steps in enumerate(tuples)}
        before = torch.tensor([number[steps[:-1]] for steps in longer], device=similarity.device)
        last = torch.tensor([steps[-1] for steps in longer], device=similarity.device)
        reached = _running_maximum(best)[:, : columns - n]
        best, tuples = reached[before] + similarity[:, n:][last], longer
    return best.amax(1)


def _running_maximum(x: Tensor) -> Tensor:
    """The greatest of the columns up to each, [I, J, *pairs]."""
    reached = [x[:, 0]]
    for j in range(1, x.shape[1]):
        reached.append(torch.maximum(reached[-1], x[:, j]))
    return torch.stack(reached, 1)
