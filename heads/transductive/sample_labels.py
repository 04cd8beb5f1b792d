"""What the objectives of TIM and alpha-TIM know of a task's samples."""

from __future__ import annotations

import torch

from ..parts.task import Task


class SampleLabels:
    """What the objective knows of a task's samples.

    hot: labels of the supports [B, N*K, N], zero rows for absent ones; support_share, query_share: the weight of each
    support [B, N*K, 1] and of each query [B, Q, 1] in a mean over those present.
    """

    def __init__(self, task: Task) -> None:
        batch, ways, shots = task.support_present.shape
        present, query_present = task.support_present.flatten(1, 2), task.query_present
        dtype = task.query.dtype
        hot = torch.eye(ways, dtype=dtype, device=present.device).repeat_interleave(shots, 0)
        self.hot = hot.expand(batch, -1, -1) * present[..., None].to(dtype)
        self.support_share = (present / present.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)
        queries = query_present.sum(1, keepdim=True).clamp(min=1)
        self.query_share = (query_present / queries)[..., None].to(dtype)
