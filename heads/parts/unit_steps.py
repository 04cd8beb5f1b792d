"""Clips as steps of length one, and the cosines of all pairs of their steps."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Stream
from .steps import widened


class UnitSteps(NamedTuple):
    """Steps of length one x [..., T, D], and which of them count, valid bool [..., T]."""

    x: Tensor
    valid: Tensor


def unit_steps(clips: Stream) -> UnitSteps:
    """The unit steps of clips [..., T, D]; half precisions are raised to float32."""
    return UnitSteps(F.normalize(widened(clips).x, dim=-1), clips.mask())


def step_cosines(support: UnitSteps, query: UnitSteps) -> Tensor:
    """The cosines [B, Q, N, K, T, T'] of the steps of queries [B, Q] and supports [B, N, K]."""
    s, q = support.x.flatten(1, 2), query.x
    product = q.flatten(1, 2) @ s.flatten(1, 2).transpose(1, 2)
    pairs = product.unflatten(1, q.shape[1:3]).unflatten(-1, s.shape[1:3]).transpose(2, 3)
    return pairs.unflatten(2, support.x.shape[1:3])
