"""Ridge regression to one-hot targets, the base learner of R2-D2: Meta-learning with Differentiable Closed-form
Solvers (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019).

W = X^T (X X^T + lambda I)^-1 Y in closed form, by a system as large as the number of supports; a query's scores are
W^T q. Here on cached features: nothing is learned, neither embedding nor scale. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.task import work_dtype
from ..parts.tensors import flat_support, single, support_labels
from ..scoring.gram import query_support
from ..settings import Settings
from .linear_probe import among_supports


@dataclass(frozen=True)
class RidgeSettings(Settings):
    """penalty: lambda. scale: multiplies the scores (the paper learns it); it changes posteriors, not predictions."""

    penalty: float = 1.0
    scale: float = 10.0


class Ridge(Head):
    settings_class = RidgeSettings
    light = True
    inner_products = True

    def __init__(self, inputs: Inputs, settings: RidgeSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if not self.settings.penalty > 0:
            raise UsageError(f"penalty={self.settings.penalty} must be positive; try penalty=1.")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Absent supports are zero vectors without a target: they get no coefficient."""
        support, query = single(episodes)
        x, present = flat_support(support)
        x = x.to(work_dtype(x.dtype)) * present[..., None]
        alpha = self._coefficients(x @ x.transpose(1, 2), present, support_labels(episodes), episodes.ways)
        weight = alpha.transpose(1, 2) @ x
        logits = self.settings.scale * query.pooled().to(x.dtype) @ weight.transpose(1, 2)
        return neutral(logits, query.present, support.present.any(2))

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """Logits [B, Q, N] from inner products [n, n] of all clips; every clip is there."""
        batch, ways, shots = index.support.shape
        among = among_supports(gram, index)
        label = torch.arange(ways, device=gram.device).repeat_interleave(shots)
        present = torch.ones(batch, ways * shots, dtype=torch.bool, device=gram.device)
        alpha = self._coefficients(among, present, label, ways)
        return self.settings.scale * query_support(gram, index).flatten(2) @ alpha

    def _coefficients(self, among: Tensor, present: Tensor, label: Tensor, ways: int) -> Tensor:
        """(G + penalty I)^-1 Y [B, M, N] of inner products G [B, M, M]; targets of absent supports are zero."""
        target = F.one_hot(label, ways).to(among.dtype) * present[..., None]
        identity = torch.eye(among.shape[1], dtype=among.dtype, device=among.device)
        return torch.linalg.solve(among + self.settings.penalty * identity, target)
