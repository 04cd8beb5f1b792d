"""Unbalanced optimal transport match, after TSAM: Frame Order Matters (Li et al., arXiv 2408.12475, 2024).

The steps of a query are carried to those of a support at the cost of their distance, and mass that costs too much is
left where it is, so that steps which have nothing to do with the class need no partner. There is no public code: the
match is rebuilt from its description, the solver is held to that of POT. Nothing is learned. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ...episodes.batch import Stream
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.context import TaskContext
from ..parts.tensors import class_means
from ..parts.transport import transport_plan
from ..parts.unit_steps import UnitSteps, step_cosines, unit_steps
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, Positive, Settings


@dataclass(frozen=True)
class UOTSettings(Settings):
    """The settings of the match by unbalanced optimal transport."""

    softness: Positive = 0.1
    """The weight of the plan's entropy."""
    penalty: Positive = 0.5
    """The price of mass that is left where it is; inf: all of it is carried (balanced transport, Sinkhorn)."""
    iterations: Count = 50
    """Scaling iterations of the solver."""
    supports: Literal["joint", "separate"] = "separate"
    """Separate: each support is matched and the mean counts; joint: the supports of a class are one measure."""
    score: Literal["cost", "similarity"] = "cost"
    """Cost: minus the mean cost of what is carried; similarity: the sum of what is carried times its cosine, so that
    mass left behind counts against a class."""
    scale: Positive = 10.0
    """The factor of the logits."""


class UOT(EncodingHead[UOTSettings, UnitSteps, UnitSteps]):
    Settings = UOTSettings

    def __init__(self, inputs: Inputs, settings: UOTSettings) -> None:
        super().__init__(inputs, settings)
        inputs.one()

    def encode(self, clips: Stream) -> UnitSteps:
        """The unit steps of clips [..., T, D]."""
        return unit_steps(clips)

    def compare(self, support: UnitSteps, query: UnitSteps, context: TaskContext) -> Tensor:
        cost = 1 - step_cosines(support, query)  # [B, Q, N, K, T, T']
        rows, columns = query.valid[:, :, None], support.valid[:, None]
        if self.settings.supports == "joint":
            aside = cost.transpose(-3, -2).flatten(-2)
            return self.settings.scale * self.score(aside, rows, columns.flatten(-2))
        each = self.score(cost, rows[:, :, :, None], columns)
        mean = class_means(each.permute(0, 2, 3, 1), context.support_present)[0]
        return self.settings.scale * mean.transpose(1, 2)

    def score(self, cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """How alike clips are, [...], by the costs [..., I, J] of steps of which rows and columns count."""
        plan = self.plan(cost, rows, columns)
        if self.settings.score == "similarity":
            return (plan * (1 - cost)).sum((-1, -2))
        return -(plan * cost).sum((-1, -2)) / plan.sum((-1, -2)).clamp(min=1e-12)

    def plan(self, cost: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """The transport plan [..., I, J] of steps with equal mass; rows: bool [..., I], columns: bool [..., J]."""
        masses = (
            (valid / valid.sum(-1, keepdim=True).clamp(min=1)).to(cost.dtype).expand(*cost.shape[:-2], -1)
            for valid in (rows, columns)
        )
        row_mass, column_mass = masses
        return transport_plan(
            cost,
            row_mass,
            column_mass,
            softness=self.settings.softness,
            penalty=self.settings.penalty,
            iterations=self.settings.iterations,
        )

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each pair of clips is matched once; separate supports count by the mean of their scores."""
        once = self.once_per_clip()
        pool = None if self.settings.supports == "joint" else lambda pairs: pairs.mean(-1)
        return (once, FromPairs(head=self, pool=pool, once_per_clip=once))
