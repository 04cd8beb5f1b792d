"""Ridge regression to one-hot targets, the base learner of R2-D2: Meta-learning with Differentiable Closed-form
Solvers (Bertinetto, Henriques, Torr and Vedaldi, ICLR 2019).

W = X^T (X X^T + lambda I)^-1 Y in closed form, by a system as large as the number of supports; a query's scores are
W^T q. Here on cached features: nothing is learned, neither embedding nor scale. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ..head import Head
from ..parts.absence import neutral
from ..parts.task import work_dtype
from ..parts.tensors import flat_support, single
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Positive, Settings


@dataclass(frozen=True)
class RidgeSettings(Settings):
    """The settings of ridge regression."""

    penalty: Positive = 1.0
    """Lambda, the strength of the penalty."""
    scale: Positive = 10.0
    """The factor of the scores, which the paper learns; it changes posteriors and no prediction."""


class Ridge(Head[RidgeSettings]):
    Settings = RidgeSettings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Absent supports are zero vectors without a target: they get no coefficient."""
        support, query = single(episodes)
        x, present = flat_support(support)
        x = x.to(work_dtype(x.dtype)) * present[..., None]
        alpha = self._coefficients(x @ x.transpose(1, 2), support.present)
        weight = alpha.transpose(1, 2) @ x
        logits = self.settings.scale * query.pooled().to(x.dtype) @ weight.transpose(1, 2)
        return neutral(logits, query.present, support.present.any(2))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Logits follow from inner products, as the coefficients do."""
        return (FromGram(logits=self._from_products),)

    def _from_products(self, products: Products) -> Tensor:
        present = torch.ones_like(products.support, dtype=torch.bool)
        alpha = self._coefficients(products.among_supports, present)
        return self.settings.scale * products.query_support.flatten(2) @ alpha

    def _coefficients(self, among: Tensor, support_present: Tensor) -> Tensor:
        """(G + penalty I)^-1 Y, [B, M, N], of inner products G [B, M, M] of the M = N*K supports, class by class.

        support_present: bool [B, N, K]; the targets of absent supports are zero.
        """
        ways, shots = support_present.shape[1:]
        label = torch.arange(ways, device=among.device).repeat_interleave(shots)
        target = F.one_hot(label, ways).to(among.dtype) * support_present.flatten(1)[..., None]
        identity = torch.eye(among.shape[1], dtype=among.dtype, device=among.device)
        return torch.linalg.solve(among + self.settings.penalty * identity, target)
