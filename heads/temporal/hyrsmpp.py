"""HyRSM++: Hybrid Relation Guided Temporal Set Matching for Few-shot Action Recognition (Wang et al., PR 2024).

HyRSM with a regulariser of temporal coherence: frames of a clip that are close in time shall be alike after both
relations, and distant ones shall differ, the more the further apart they are. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ..head import Losses
from ..settings import CountOrNone, NonNegative, Positive
from .hyrsm import Clips, HyRSM, HyRSMSettings, Related


@dataclass(frozen=True)
class HyRSMPlusPlusSettings(HyRSMSettings):
    """HyRSM++'s settings: those of HyRSM and of the regulariser."""

    window: CountOrNone = 1
    """Frames that are at most this many steps apart shall be alike."""
    sigma: Positive = 51.0
    """How slowly the margin of the other frames grows with their distance in time."""
    balance: NonNegative = 10.0
    """The factor of the regulariser's part outside the window."""
    coherence: NonNegative = 0.1
    """The weight of the regulariser."""


class HyRSMPlusPlus(HyRSM[HyRSMPlusPlusSettings]):
    Settings = HyRSMPlusPlusSettings

    def objective(self, episodes: Episodes, support: Clips, query: Clips, related: Related) -> Losses:
        """HyRSM's objective, plus ``coherence`` times the regulariser."""
        losses = super().objective(episodes, support, query, related)
        extra = self.incoherence(related)
        return Losses(losses.total + self.settings.coherence * extra, {**losses.parts, "coherence": extra})

    def incoherence(self, related: Related) -> Tensor:
        """The regulariser, a mean over support entries plus one over query entries.

        With D_ij = 1 - cos of a clip's frames i, j:  D_ij / ((i-j)^2 + 1) inside the window,
        balance * relu(m_ij - D_ij), m_ij = 1 - exp(-(|i-j| - window)^2 / sigma), outside.
        """
        support_valid = related.support_valid[:, None].expand(related.support.shape[:-1])
        of_support = self._incoherence(related.support, support_valid)
        return of_support + self._incoherence(related.query, related.query_valid)

    def _incoherence(self, x: Tensor, valid: Tensor) -> Tensor:
        """The regulariser's mean over the pairs of valid frames, bool [..., T], of clips x [..., T, D]."""
        unit = F.normalize(x, dim=-1)
        distance = 1 - unit @ unit.transpose(-1, -2)
        weight, inside = self.window_weights(x)
        outside = self.settings.balance * torch.relu(weight - distance)
        entry = torch.where(inside, distance * weight, outside)
        counts = (valid[..., None] & valid[..., None, :]).to(entry.dtype)
        return (entry * counts).sum() / counts.sum().clamp(min=1)

    def window_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, T]: 1 / ((i-j)^2 + 1) inside the window and the margin outside; and which entries are inside, bool."""
        step = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
        gap = (step[:, None] - step).abs()
        inside = gap <= self.settings.window
        margin = 1 - torch.exp(-((gap - self.settings.window) ** 2) / self.settings.sigma)
        return torch.where(inside, 1 / (gap**2 + 1), margin), inside
