"""Set matching: two clips compared as sets of steps, whatever their order."""

from __future__ import annotations

import torch
from torch import Tensor


def hausdorff(
    distance: Tensor, row_valid: Tensor, column_valid: Tensor, *, average: bool = True, both: bool = True
) -> Tensor:
    """Set distances [...] of two clips from the distances of their steps.

    distance: [..., I, J]; row_valid: bool [..., I]; column_valid: bool [..., J].
    average: a side's distance is the mean over its valid steps instead of their sum. both: the distances of the rows to
    the columns and of the columns to the rows are added; otherwise there are the former only.
    """
    total = side_distance(distance, row_valid, column_valid, average=average)
    if not both:
        return total
    return total + side_distance(distance.transpose(-1, -2), column_valid, row_valid, average=average)


def side_distance(distance: Tensor, row_valid: Tensor, column_valid: Tensor, *, average: bool) -> Tensor:
    """The mean (or sum) [...] over the valid rows of the distance to the nearest column; shapes as in hausdorff."""
    nearest = nearest_distance(distance, column_valid)
    nearest = torch.where(row_valid, nearest, torch.zeros_like(nearest))
    return nearest.sum(-1) / (row_valid.sum(-1).clamp(min=1) if average else 1)


def nearest_distance(distance: Tensor, column_valid: Tensor) -> Tensor:
    """The least of distance [..., I, J] over the valid columns [..., J], -> [..., I]; 0 where there is none."""
    far = torch.finfo(distance.dtype).max
    least = distance.masked_fill(~column_valid[..., None, :], far).amin(-1)
    return torch.where(column_valid.any(-1, keepdim=True), least, torch.zeros_like(least))
