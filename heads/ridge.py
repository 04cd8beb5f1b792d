"""Ridge regression to one-hot targets, the base learner of R2-D2: Meta-learning with Differentiable Closed-form
Solvers (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019).

W = X^T (X X^T + lambda I)^-1 Y in closed form, by a system as large as the number of supports; a query's scores are
W^T q. Here on cached features: nothing is learned, neither embedding nor scale. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..episodes.batch import Episodes
from ..errors import UsageError
from .base import Head, Inputs, Settings
from .metric_parts import work_dtype
from .parts import flat_support, neutral, single, support_labels


@dataclass(frozen=True)
class RidgeSettings(Settings):
    """penalty: lambda. scale: multiplies the scores (the paper learns it); it changes posteriors, not predictions."""

    penalty: float = 1.0
    scale: float = 10.0


class Ridge(Head):
    settings_class = RidgeSettings

    def __init__(self, inputs: Inputs, settings: RidgeSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if not self.settings.penalty > 0:
            raise UsageError(f"penalty={self.settings.penalty} must be positive; try penalty=1.")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Absent supports are zero vectors without a target: they get no coefficient."""
        support, query = single(episodes)
        x, present = flat_support(support)
        x = x.to(work_dtype(x.dtype)) * present[..., None]
        target = (
            torch.nn.functional.one_hot(support_labels(episodes), episodes.ways).to(x.dtype)
            * present[..., None]
        )
        identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        alpha = torch.linalg.solve(x @ x.transpose(1, 2) + self.settings.penalty * identity, target)
        weight = alpha.transpose(1, 2) @ x
        logits = self.settings.scale * query.pooled().to(x.dtype) @ weight.transpose(1, 2)
        return neutral(logits, query.present, support.present.any(2))
