"""Gather rows into memory that a thread keeps: fresh pages cost more than the copy itself."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

_mine = threading.local()


def gather_rows(x: Tensor, rows: Tensor) -> Tensor:
    """x[rows] for x [n, D] and rows of any shape, in this thread's buffer: valid until this thread's next call."""
    flat = rows.reshape(-1).to(x.device)
    kept: Tensor | None = getattr(_mine, "buffer", None)
    fits = (
        kept is not None and kept.dtype == x.dtype and kept.device == x.device and kept.shape[1] == x.shape[1]
    )
    if kept is None or not fits or len(kept) < len(flat):
        kept = _mine.buffer = x.new_empty((len(flat), x.shape[1]))
    out = kept[: len(flat)]
    torch.index_select(x, 0, flat, out=out)
    return out.view(*rows.shape, -1)
