"""PT-MAP: Leveraging the Feature Distribution in Transfer-based Few-Shot Learning (Hu, Gripon and Pateux, ICANN 2021).

A power transform makes features more Gaussian; queries are then shared out among the classes by optimal transport
(Sinkhorn) from class centres, and the centres move towards the shares' means, twenty times over. Transductive, and,
as in the paper, it is told that the queries are equally many of every class (``balanced``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..encoding import EncodingHead
from ..parts.absence import zero_where_absent
from ..parts.context import TaskContext
from ..parts.distances import squared_distance_to
from ..parts.task import Task, work_dtype
from ..parts.tensors import masked_mean
from ..settings import Count, CountOrNone, NonNegative, Positive, Settings

_EPSILON = 1e-6  # what the power transform adds to every feature


@dataclass(frozen=True)
class PTMAPSettings(Settings):
    """PT-MAP's settings."""

    beta: Positive = 0.5
    """The power of the transform, 1 for none; negative features keep their sign (published features have none)."""
    sharpness: Positive = 10.0
    """Lambda in exp(-lambda distance)."""
    rate: NonNegative = 0.2
    """Alpha, how far the centres move towards the shares' means."""
    iterations: CountOrNone = 20
    """How often the centres move."""
    balanced: bool = True
    """Transport gives every class the same mass, as in the paper; false only normalises each query's shares."""
    tolerance: NonNegative = 1e-6
    """The change of the shares at which Sinkhorn's rounds end."""
    rounds: Count = 1000
    """The most rounds of Sinkhorn."""
    stop: Literal["each", "batch"] = "each"
    """Sinkhorn ends for each episode when it has converged, or for the batch when all have (released code)."""


class PTMAP(EncodingHead[PTMAPSettings, Tensor, Tensor]):
    Settings = PTMAPSettings

    def encode(self, clips: Stream) -> Tensor:
        """Power-transformed features [..., D] of length one; those of absent clips have no meaning."""
        x = zero_where_absent(clips.pooled().to(work_dtype(clips.x.dtype)), clips.present)
        power = (x.abs() + _EPSILON) ** self.settings.beta
        return F.normalize(torch.where(x < 0, -power, power), dim=-1)

    def compare(self, support: Tensor, query: Tensor, context: TaskContext) -> Tensor:
        """Logits [B, Q, N]: the logarithm of the transported mass."""
        task = self.centred(Task(support, context.support_present, query, context.query_present))
        share, _ = self.adapt(task)
        return share.clamp(min=1e-20).log()

    def centred(self, task: Task) -> Task:
        """Supports and queries each centred by their own mean and brought to length one.

        The released code rotates features before, to have fewer coordinates; nothing here depends on a rotation.
        """
        support = _centred(task.support.flatten(1, 2), task.support_present.flatten(1, 2))
        query = _centred(task.query, task.query_present)
        return task._replace(support=support.view_as(task.support), query=query)

    def adapt(self, task: Task) -> tuple[Tensor, Tensor]:
        """The final shares [B, Q, N] and centres [B, N, D] of a centred task."""
        total = (task.support * task.support_present[..., None].to(task.support.dtype)).sum(2)
        count = task.support_present.sum(2).to(total.dtype)
        centre = total / count.clamp(min=1)[..., None]
        for _ in range(self.settings.iterations):
            share = self.shares(task, centre)
            mass = (count + share.sum(1)).clamp(min=1e-12)
            estimate = (total + share.transpose(1, 2) @ task.query) / mass[..., None]
            centre = centre + self.settings.rate * (estimate - centre)
        return self.shares(task, centre), centre

    def shares(self, task: Task, centre: Tensor) -> Tensor:
        """What each query gives each class [B, Q, N]: rows of present queries sum to one, all others are zero."""
        cost = squared_distance_to(task.query, centre)
        allowed = task.query_present[:, :, None] & task.class_present[:, None, :]
        if not self.settings.balanced:
            return self._rows_only(cost, allowed)
        plan = torch.exp(-self.settings.sharpness * cost) * allowed.to(cost.dtype)
        return self._sinkhorn(plan, task.query_present, task.class_present)

    def _rows_only(self, cost: Tensor, allowed: Tensor) -> Tensor:
        share = torch.softmax((-self.settings.sharpness * cost).masked_fill(~allowed, -1e4), -1)
        return share * allowed.to(share.dtype)

    def _sinkhorn(self, plan: Tensor, query_present: Tensor, class_present: Tensor) -> Tensor:
        """The plan [B, Q, N] with its rows and columns scaled until rows sum to 1 and columns to (queries / classes).

        The plan stays as it is; its scales are what the rounds change: diag(left) plan diag(right).
        """
        row = query_present.to(plan.dtype)[..., None]
        share = row.sum(1, keepdim=True) / class_present.sum(1).clamp(min=1)[:, None, None]
        column = share * class_present[..., None].to(plan.dtype)
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


def _centred(x: Tensor, present: Tensor) -> Tensor:
    """x [B, M, D] minus the mean of the present rows, of length one; absent rows become zero. present: bool [B, M]."""
    return F.normalize(x - masked_mean(x, present)[:, None], dim=-1) * present[..., None].to(x.dtype)
