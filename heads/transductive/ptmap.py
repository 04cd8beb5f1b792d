"""PT-MAP: Leveraging the Feature Distribution in Transfer-based Few-Shot Learning (Hu, Gripon and Pateux, ICANN 2021).

A power transform makes features more Gaussian; queries are then shared out among the classes by optimal transport
(Sinkhorn) from class centres, and the centres move towards the shares' means, twenty times over. Transductive, and,
as in the paper, it is told that the queries are equally many of every class (``balanced``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import apart
from ..parts.task import Task, pooled_task
from ..parts.tensors import masked_mean
from ..settings import Settings

_EPSILON = 1e-6  # of the power transform


@dataclass(frozen=True)
class PTMAPSettings(Settings):
    """beta: power of the transform (1: none); negative features keep their sign (published features have none).

    sharpness: lambda in exp(-lambda distance). rate: alpha, how far centres move. iterations: moves of the centres.
    balanced: transport gives every class the same mass (paper); False only normalises each query's shares.
    tolerance, rounds: of Sinkhorn. stop: "each" episode when it has converged, or the "batch" when all have (released).
    """

    beta: float = 0.5
    sharpness: float = 10.0
    rate: float = 0.2
    iterations: int = 20
    balanced: bool = True
    tolerance: float = 1e-6
    rounds: int = 1000
    stop: str = "each"


class PTMAP(Head):
    settings_class = PTMAPSettings
    light = True

    def __init__(self, inputs: Inputs, settings: PTMAPSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.stop not in ("each", "batch"):
            raise UsageError(f"stop={self.settings.stop!r} is not known; use each or batch.")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: log of the transported mass."""
        task = self.transformed(pooled_task(episodes))
        share, _ = self.adapt(task)
        return neutral(share.clamp(min=1e-20).log(), task.asked, task.known)

    def transformed(self, task: Task) -> Task:
        """Power transform, unit length, centring of supports and queries each by their own mean, unit length.

        The released code rotates features in between to have fewer coordinates; nothing here depends on a rotation.
        """
        support = self._centred(task.support.flatten(1, 2), task.shown.flatten(1, 2))
        query = self._centred(task.query, task.asked)
        return task._replace(support=support.view_as(task.support), query=query)

    def _centred(self, x: Tensor, there: Tensor) -> Tensor:
        """x [B, M, D] transformed; rows that are not there become zero."""
        power = (x.abs() + _EPSILON) ** self.settings.beta
        x = torch.where(x < 0, -power, power)
        x = F.normalize(x, dim=-1)
        x = x - masked_mean(x, there)[:, None]
        return F.normalize(x, dim=-1) * there[..., None].to(x.dtype)

    def adapt(self, task: Task) -> tuple[Tensor, Tensor]:
        """Final shares [B, Q, N] and centres [B, N, D]."""
        total = (task.support * task.shown[..., None].to(task.support.dtype)).sum(2)
        count = task.shown.sum(2).to(total.dtype)
        centre = total / count.clamp(min=1)[..., None]
        for _ in range(self.settings.iterations):
            share = self.shares(task, centre)
            mass = (count + share.sum(1)).clamp(min=1e-12)
            estimate = (total + share.transpose(1, 2) @ task.query) / mass[..., None]
            centre = centre + self.settings.rate * (estimate - centre)
        return self.shares(task, centre), centre

    def shares(self, task: Task, centre: Tensor) -> Tensor:
        """What each query gives each class [B, Q, N]: rows of present queries sum to one, all others are zero."""
        cost = apart(task.query, centre)
        allowed = task.asked[:, :, None] & task.known[:, None, :]
        if not self.settings.balanced:
            return self._rows_only(cost, allowed)
        plan = torch.exp(-self.settings.sharpness * cost) * allowed.to(cost.dtype)
        return self._sinkhorn(plan, task.asked, task.known)

    def _rows_only(self, cost: Tensor, allowed: Tensor) -> Tensor:
        share = torch.softmax((-self.settings.sharpness * cost).masked_fill(~allowed, -1e4), -1)
        return share * allowed.to(share.dtype)

    def _sinkhorn(self, plan: Tensor, asked: Tensor, known: Tensor) -> Tensor:
        """Scale rows and columns of plan [B, Q, N] until rows sum to 1 and columns to (queries / classes).

        The plan stays as it is; its scales are what the rounds change: diag(left) plan diag(right).
        """
        row = asked.to(plan.dtype)[..., None]
        share = row.sum(1, keepdim=True) / known.sum(1).clamp(min=1)[:, None, None]
        column = share * known[..., None].to(plan.dtype)
        plan = plan / plan.sum((1, 2), keepdim=True).clamp(min=1e-30)
        across = plan.transpose(1, 2)
        left, right = torch.ones_like(row), torch.ones_like(column)
        before = torch.zeros_like(row)
        for _ in range(self.settings.rounds):
            reach = plan @ right
            now = left * reach
            moving = (before - now).abs().amax(1, keepdim=True) > self.settings.tolerance
            if not moving.any():
                break
            new_left = row / reach.clamp(min=1e-30)
            new_right = column / (across @ new_left).clamp(min=1e-30)
            if self.settings.stop == "each":
                # An episode that has converged stays where it stopped, whatever the others of its batch do.
                new_left, new_right = (
                    torch.where(moving, new_left, left),
                    torch.where(moving, new_right, right),
                )
                now = torch.where(moving, now, before)
            left, right, before = new_left, new_right, now
        return left * plan * right.transpose(1, 2)
