"""Set matching: two clips compared as sets of steps, whatever their order."""

from __future__ import annotations

import torch
from torch import Tensor


def hausdorff(distance: Tensor, here: Tensor, there: Tensor, average: bool = True) -> Tensor:
    """Both directed set distances added: distance [..., I, J], steps that count here [..., I], there [..., J] -> [...].

    A step's distance is that to the nearest step of the other side; averaged over the steps of a side, or summed.
    """
    far = torch.finfo(distance.dtype).max
    total = distance.new_zeros(())
    for axis, mine, other in ((-1, here, there[..., None, :]), (-2, there, here[..., :, None])):
        nearest = distance.masked_fill(~other, far).amin(axis)
        nearest = torch.where(mine, nearest, torch.zeros_like(nearest))
        nearest = torch.where(other.any(axis), nearest, torch.zeros_like(nearest))  # nothing to be near to
        count = mine.sum(-1).clamp(min=1) if average else 1
        total = total + nearest.sum(-1) / count
    return total
