"""What a head says of clips and classes of which it knows nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def neutral(logits: Tensor, query_present: Tensor, class_present: Tensor) -> Tensor:
    """Logits [B, Q, N] that say nothing where nothing is known.

    The columns of classes without a support become the mean of the others, and the rows of absent queries zero.
    query_present: bool [B, Q]; class_present: bool [B, N].
    """
    if not class_present.all():
        weight = class_present[:, None, :].to(logits.dtype)
        mean = (logits * weight).sum(-1, keepdim=True) / weight.sum(-1, keepdim=True).clamp(min=1)
        logits = torch.where(class_present[:, None, :], logits, mean)
    if not query_present.all():
        logits = logits * query_present[..., None].to(logits.dtype)
    return logits


def zero_where_absent(x: Tensor, present: Tensor) -> Tensor:
    """x [..., D] with zeros for the clips that are absent; fusion may have filled them in. present: bool [...].

    Where all are present, x itself is returned, without a copy.
    """
    return x if bool(present.all()) else x * present[..., None].to(x.dtype)
