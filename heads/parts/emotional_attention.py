"""Dynamic emotional attention: which of a frame's objects is the protagonist, by its relations and its affect.

In shapes F is the number of frames of a clip, n that of objects in a frame, D the width of an object's features and C
the number of classes of objects.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Among = Literal["neighbours", "clip", "none"]


def regions_attended(
    region: Tensor, score: Tensor | None, affect: Tensor | None, *, among: Among, balance: float
) -> Tensor:
    """Q_j = alpha_j o_j [..., F, n, D] of the objects o_j, regions [..., F, n, D] of which absent ones are zero.

    score: how much a region is of each class [..., F, n, C], and affect: the affects of the classes [C]; None where
    they are not known. An object has the mean affect of its classes.
    """
    unit = F.normalize(region, dim=-1)
    related = (unit * _sum_around(unit.sum(-2), among)[..., None, :]).sum(-1)
    emotional = torch.zeros_like(related)
    if score is not None and affect is not None:
        share = score.clamp(min=0)
        emotional = (share @ affect.to(share)) / share.sum(-1).clamp(min=1e-12)
    return attention(related, emotional, balance)[..., None] * region


def classes_attended(score: Tensor, affect: Tensor | None, *, among: Among, balance: float) -> Tensor:
    """Q_j [..., F, C], where the objects of a frame are the classes by their scores [..., F, C].

    Two objects of one class have the cosine one and others zero, and each counts by its score, so that a class is
    related to where it is seen in other frames.
    """
    emotional = torch.zeros_like(score) if affect is None else affect.to(score).expand_as(score)
    return attention(_sum_around(score, among), emotional, balance) * score


def attention(related: Tensor, emotional: Tensor, balance: float) -> Tensor:
    """alpha = sigmoid(balance * relatedness + (1 - balance) * affect), of any shape."""
    return torch.sigmoid(balance * related + (1 - balance) * emotional)


def _sum_around(frame: Tensor, among: Among) -> Tensor:
    """For each frame the sum [..., F, D] over the one before and the one after, or over all others of the clip."""
    if among == "none":
        return torch.zeros_like(frame)
    if among == "clip":
        return frame.sum(-2, keepdim=True) - frame
    padded = F.pad(frame, (0, 0, 1, 1))
    return padded[..., :-2, :] + padded[..., 2:, :]
