"""Batch normalisation inside one task."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import UsageError


class TaskNorm(nn.Module):
    """Batch normalisation of x [B, P, C, ...] over one task's P items, so that tasks never see each other.

    In evaluation it uses running statistics, unless ``batch_statistics`` (released Relation Network scripts never
    leave training mode, which makes their test transductive). Running statistics average the step's tasks.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.batch_statistics = momentum, batch_statistics

    def forward(self, x: Tensor) -> Tensor:
        """x [B, P, C, ...] normalised. Raises UsageError where a task has a single number a channel."""
        if not (self.training or self.batch_statistics):
            flat = F.batch_norm(x.flatten(0, 1), self.running_mean, self.running_var, self.weight, self.bias)
            return flat.unflatten(0, x.shape[:2])
        if self.training:
            self._track(x.detach())
        tasks, items = x.shape[:2]
        # Tasks become channels, so that one call normalises each by itself.
        flat = x.transpose(0, 1).flatten(1, 2)
        if flat[:, 0].numel() < 2:
            raise UsageError("Batch statistics need more than one pair a task; use more queries or ways.")
        out = F.batch_norm(
            flat, None, None, self.weight.repeat(tasks), self.bias.repeat(tasks), training=True
        )
        return out.view(items, tasks, *x.shape[2:]).transpose(0, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """The scale and the shift, [C] each, that evaluation by running statistics comes to."""
        scale = self.weight / (self.running_var + 1e-5).sqrt()
        return scale, self.bias - scale * self.running_mean

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        by_task = x.transpose(1, 2).flatten(2)
        var, mean = torch.var_mean(by_task, dim=-1)
        self.running_mean.lerp_(mean.mean(0).to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.mean(0).to(self.running_var), self.momentum)
