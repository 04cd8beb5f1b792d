"""Linear probe: multinomial logistic regression on the supports (Cox, The Regression Analysis of Binary Sequences,
JRSS B 1958), with the penalty and the defaults of scikit-learn's LogisticRegression.

The best weights lie in the span of the supports, W = A^T X, so a task is a problem of N*K coefficients a class over
the Gram matrix of its supports, whatever the feature width; all tasks of a batch are solved at once. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.lbfgs import Point, minimise
from ..parts.task import work_dtype
from ..parts.tensors import flat_support, single, support_labels
from ..scoring.gram import query_support, within_classes
from ..settings import Settings


@dataclass(frozen=True)
class LinearProbeSettings(Settings):
    """c: inverse strength of the penalty |W|^2 / 2 against the summed loss. intercept: an offset a class, unpenalised.

    tol: the gradient's norm over c times the number of supports at which a task is solved; max_iter: iterations.
    """

    c: float = 1.0
    intercept: bool = True
    tol: float = 1e-4
    max_iter: int = 200


class LinearProbe(Head):
    settings_class = LinearProbeSettings
    light = True
    inner_products = True

    def __init__(self, inputs: Inputs, settings: LinearProbeSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if not self.settings.c > 0:
            raise UsageError(
                f"c={self.settings.c} must be positive; it is the inverse of the penalty's strength."
            )

    @torch.no_grad()
    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N] = W q + b at the solution."""
        support, query = single(episodes)
        x, present = flat_support(support)
        x = x.to(work_dtype(x.dtype))
        q = query.pooled().to(x.dtype)
        known = support.present.any(2)
        problem = Problem(x @ x.transpose(1, 2), support_labels(episodes), present, known, self.settings)
        alpha, offset = problem.solve()
        # W itself is as wide as the features but there are only N of it: cheaper than query-by-support products.
        weight = alpha.transpose(1, 2) @ x
        return neutral(q @ weight.transpose(1, 2) + offset, query.present, known)

    @torch.no_grad()
    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """Logits [B, Q, N] from inner products [n, n] of all clips; every clip is there."""
        batch, ways, shots = index.support.shape
        known = torch.ones(batch, ways, dtype=torch.bool, device=gram.device)
        label = torch.arange(ways, device=gram.device).repeat_interleave(shots)
        present = known.repeat_interleave(shots, 1)
        alpha, offset = Problem(among_supports(gram, index), label, present, known, self.settings).solve()
        return query_support(gram, index).flatten(2) @ alpha + offset


def among_supports(gram: Tensor, index: EpisodeIndex) -> Tensor:
    """Inner products [B, N*K, N*K] of all supports of an episode, class by class, from those of all clips [n, n]."""
    return within_classes(gram, replace(index, support=index.support.flatten(1)[:, None])).squeeze(1)


class Problem:
    """Multinomial logistic regression of B tasks over the Gram matrix of their M = N*K supports.

    minimise c * sum_i w_i CE(f_i, y_i) + tr(A^T G A) / 2 with f = G A + b, over A [M, N] and b [N]; w_i is 0 for an
    absent support. A class without supports takes no part. For two classes c is halved: scikit-learn then fits a
    single weight vector, whose penalty is twice that of a pair of opposite ones.

    gram: [B, M, M]; label: int64 [M]; present: bool [B, M]; known: bool [B, N].
    """

    def __init__(
        self, gram: Tensor, label: Tensor, present: Tensor, known: Tensor, settings: LinearProbeSettings
    ) -> None:
        self.gram, self.label, self.settings = gram, label, settings
        self.batch, self.rows, self.ways = len(gram), gram.shape[1], known.shape[1]
        pair = known.sum(1) == 2
        self.c = torch.where(pair, settings.c / 2, settings.c).to(gram.dtype)
        self.weight = present.to(gram.dtype) * self.c[:, None]
        self.excluded = torch.where(known, 0.0, -1e30).to(gram.dtype)[:, None, :]
        self.target = F.one_hot(label, self.ways).to(gram.dtype)

    def solve(self) -> tuple[Tensor, Tensor]:
        """A [B, M, N] and b [B, 1, N]."""
        start = self.gram.new_zeros(self.batch, (self.rows + 1) * self.ways)
        tolerance = self.settings.tol * self.weight.sum(1)
        return self._split(minimise(self.at, start, tolerance, self.settings.max_iter))

    def at(self, coefficients: Tensor) -> Point:
        """The objective at [B, (M + 1) * N]; preconditioned by G, which makes the penalty plain."""
        alpha, offset = self._split(coefficients)
        smooth = self.gram @ alpha
        log_p = torch.log_softmax(smooth + offset + self.excluded, -1)
        loss = -(self.weight * (log_p * self.target).sum(-1)).sum(1)
        value = loss + (alpha * smooth).sum((1, 2)) / 2
        error = self.weight[..., None] * (log_p.exp() - self.target)
        conditioned = error + alpha
        by_offset = error.sum(1, keepdim=True) if self.settings.intercept else torch.zeros_like(offset)
        return Point(
            value,
            torch.cat([self.gram @ error + smooth, by_offset], 1).flatten(1),
            torch.cat([conditioned, by_offset], 1).flatten(1),
        )

    def _split(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        both = coefficients.unflatten(1, (self.rows + 1, self.ways))
        return both[:, :-1], both[:, -1:]
