"""What a head says of clips and classes of which it knows nothing."""

from __future__ import annotations

import torch
from torch import Tensor


def neutral(logits: Tensor, query_present: Tensor, class_present: Tensor) -> Tensor:
    """Where nothing is known, say nothing: logits [B, Q, N] with the columns of classes without support set to the
    mean of the others, and the rows of absent queries set to zero. query_present [B, Q]; class_present [B, N].
    """
    if not class_present.all():
        known = class_present[:, None, :].to(logits.dtype)
        mean = (logits * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
        logits = torch.where(class_present[:, None, :], logits, mean)
    if not query_present.all():
        logits = logits * query_present[..., None].to(logits.dtype)
    return logits


def where_there(x: Tensor, there: Tensor) -> Tensor:
    """x [..., D] with zeros where not there [...]; no copy where all is there (fusion fills in what is absent)."""
    return x if bool(there.all()) else x * there[..., None].to(x.dtype)
