"""Codes of positions in a sequence, which are added to its steps."""

from __future__ import annotations

import torch
from torch import Tensor


def sinusoid(steps: int, like: Tensor, *, slow: bool = True) -> Tensor:
    """Position codes [steps, D] for like [..., D]: code[t, i] = sin(t / 10000^(i/D)) for even i, cos for odd ones.

    slow: a pair of entries shares its frequency (Vaswani et al. 2017); otherwise the exponent is 2i/D, with i itself in
    the cosines, and frequencies fall twice as fast (as in the released code of HyRSM and its relatives).
    """
    dim = like.shape[-1]
    entry = torch.arange(dim, device=like.device, dtype=torch.float64)
    exponent = (entry - entry % 2) / dim if slow else 2 * entry / dim
    time = torch.arange(steps, device=like.device, dtype=torch.float64)
    angle = time[:, None] / 10000.0**exponent
    return torch.where(entry % 2 == 0, angle.sin(), angle.cos()).to(like.dtype)
