"""A training-free code of clips of several modalities: pooled features, whitened by how clips of base classes scatter.

Each modality is averaged over time and brought to length one, all modalities are laid side by side, and the code is
what is left of the clip's mean after the scatter within base classes is made alike in every direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream


class WhitenedClips(nn.Module):
    """Clips as unit vectors [..., D], D the summed width of the modalities.

    Before :meth:`fit` nothing is centred or whitened. An absent modality is taken to be the mean of the base clips.
    widths: D of each modality, by name; shrinkage: how far the scatter is drawn to a multiple of the identity.
    """

    centre: Tensor
    whitening: Tensor

    def __init__(self, widths: Mapping[str, int], shrinkage: float) -> None:
        super().__init__()
        self.widths, self.shrinkage = dict(widths), shrinkage
        dim = sum(self.widths.values())
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))

    @property
    def dim(self) -> int:
        """The width D of the code."""
        return len(self.centre)

    @torch.no_grad()
    def fit(self, base: FeatureBank) -> None:
        """Finds the mean of the base clips and the whitening, in closed form; clips without any modality are left out.

        Where clips have several labels, the scatter is that around the mean of all clips.
        """
        pooled = base.select(list(self.widths)).pooled()
        rows = torch.arange(len(base), device=base.device)
        streams = {m: table.gather(rows) for m, table in pooled.tables.items()}
        x = self._joined(streams).double()
        present = torch.stack([s.present for s in streams.values()]).any(0)
        x = x[present]
        centre = x.mean(0)
        away = x - centre
        if not base.multi:
            away = away - class_mean_of_each(away, base.label[present])
        self.centre = centre.to(self.centre)
        self.whitening = self._whitening(away).to(self.whitening)

    def forward(self, streams: Mapping[str, Stream]) -> Tensor:
        """The codes of clips; zeros for clips without any modality."""
        held = _first(streams, list(self.widths))
        known = torch.cat([self._known(streams.get(m), held, dim) for m, dim in self.widths.items()], -1)
        x = torch.where(known, self._joined(streams) - self.centre, torch.zeros_like(self.centre))
        return F.normalize(x @ self.whitening, dim=-1)

    def _joined(self, streams: Mapping[str, Stream]) -> Tensor:
        """The unit means of all modalities side by side, [..., D]; zeros for those that a clip lacks."""
        held = _first(streams, list(self.widths))
        parts = []
        for m, dim in self.widths.items():
            if m in streams:
                parts.append(F.normalize(streams[m].pooled().to(self.centre.dtype), dim=-1))
            else:
                parts.append(self.centre.new_zeros(*held.present.shape, dim))
        return torch.cat(parts, -1)

    def _known(self, stream: Stream | None, held: Stream, dim: int) -> Tensor:
        """Whether each entry of a modality is known, bool [..., dim]."""
        present = torch.zeros_like(held.present) if stream is None else stream.present
        return present[..., None].expand(*present.shape, dim)

    def _whitening(self, away: Tensor) -> Tensor:
        """A matrix L [D, D] such that x L scatters alike in every direction; away: clips minus class means [n, D]."""
        covariance = away.T @ away / max(len(away), 1)
        level = covariance.diagonal().mean().clamp(min=1e-12)
        eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
        lower = torch.linalg.cholesky((1 - self.shrinkage) * covariance + self.shrinkage * level * eye)
        return torch.linalg.solve_triangular(lower, eye, upper=False).T


def class_mean_of_each(x: Tensor, label: Tensor) -> Tensor:
    """The mean of each clip's class, [n, D], of features x [n, D] and labels int64 [n]."""
    hot = F.one_hot(label).to(x.dtype)
    means = hot.T @ x / hot.sum(0).clamp(min=1)[:, None]
    return means[label]


def _first(streams: Mapping[str, Stream], names: Sequence[str]) -> Stream:
    """The first of the named streams that clips carry."""
    return next(streams[m] for m in names if m in streams)
