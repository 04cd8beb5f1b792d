"""What a modality that a clip lacks is estimated from: a ridge regression on the others, or the nearest complete clips.

In shapes n is the number of complete clips, S the width of what a clip has and D that of what it lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PENALTIES = tuple(10.0 ** (power / 2) for power in range(-8, 5))
"""The ridges that are tried, relative to the mean squared length of a centred source vector."""
FOLDS = 3


class RidgeFit(NamedTuple):
    """A linear map from sources to a target: (x - centre) @ slope + target_mean."""

    centre: Tensor
    slope: Tensor
    target_mean: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """The estimates [..., D] of the targets of sources x [..., S]."""
        return (x - self.centre.to(x)) @ self.slope.to(x) + self.target_mean.to(x)


def ridge_fit(x: Tensor, y: Tensor, group: Tensor) -> RidgeFit:
    """The ridge regression W = Y'X (X'X + n g I)^-1 of targets y [n, D] on sources x [n, S], both centred.

    The penalty g is the one of ``PENALTIES`` that errs least on groups (classes) that a fit has not seen: the groups
    [n] are divided into ``FOLDS`` parts, each of which is predicted from the others. Computed in float64.
    """
    x, y = x.double(), y.double()
    errors = torch.zeros(len(PENALTIES), dtype=torch.float64, device=x.device)
    _, group = torch.unique(group, return_inverse=True)
    for fold in range(FOLDS):
        held = group % FOLDS == fold
        if bool(held.any()) and bool((~held).any()):
            errors += _Ridge.of(x[~held], y[~held]).errors(x[held], y[held])
    return _Ridge.of(x, y).fit(PENALTIES[int(errors.argmin())])


@dataclass(frozen=True, kw_only=True)
class _Ridge:
    """One decomposition of the smaller of X'X and XX', of which the regression at any penalty is made."""

    centre: Tensor
    """The mean source [S]."""
    target_mean: Tensor
    """The mean target [D]."""
    rows: Tensor | None
    """The centred sources [n, S] where XX' was decomposed, and None where X'X was."""
    value: Tensor
    """The eigenvalues [m]."""
    vector: Tensor
    """The eigenvectors [n or S, m]."""
    rotated: Tensor
    """The targets along the eigenvectors [m, D]."""
    total: Tensor
    """The sum of the squared lengths of the centred sources."""

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> _Ridge:
        """The decomposition of sources x [n, S] with targets y [n, D]."""
        centre, target_mean = x.mean(0), y.mean(0)
        x, y = x - centre, y - target_mean
        dual = len(x) < x.shape[1]
        value, vector = torch.linalg.eigh(x @ x.T if dual else x.T @ x)
        return cls(
            centre=centre,
            target_mean=target_mean,
            rows=x if dual else None,
            value=value.clamp(min=0),
            vector=vector,
            rotated=vector.T @ (y if dual else x.T @ y),
            total=x.square().sum().clamp(min=1e-12),
        )

    def fit(self, penalty: float) -> RidgeFit:
        """The regression at one penalty."""
        slope = self.vector @ self._shrunk(penalty)
        return RidgeFit(self.centre, slope if self.rows is None else self.rows.T @ slope, self.target_mean)

    def errors(self, x: Tensor, y: Tensor) -> Tensor:
        """The squared errors [P] on other clips, x [h, S] and y [h, D], at each of ``PENALTIES``.

        The clips are turned to the eigenvectors once, so that no slope [S, D] is made for a penalty.
        """
        x = x - self.centre
        turned = (x if self.rows is None else x @ self.rows.T) @ self.vector
        y = y - self.target_mean
        return torch.stack([(turned @ self._shrunk(each) - y).square().sum() for each in PENALTIES])

    def _shrunk(self, penalty: float) -> Tensor:
        return self.rotated / (self.value + penalty * self.total)[:, None]


def nearest(
    query: Tensor, memory: Tensor, count: int, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The ``count`` rows of memory [n, S] with the greatest cosine to each query [q, S], int64 [q, k], and the cosines.

    excluded: bool [q, n], rows that a query may not take, such as itself; None for none.
    """
    cosines = F.normalize(query.float(), dim=-1) @ F.normalize(memory.float(), dim=-1).T
    if excluded is not None:
        cosines = cosines.masked_fill(excluded, -2.0)
    value, row = cosines.topk(min(count, len(memory)), dim=-1)
    return row, value
