"""Linear probe: The Regression Analysis of Binary Sequences (Cox, JRSS B 1958): multinomial logistic regression on the
supports, with the penalty and the defaults of scikit-learn's LogisticRegression.

The best weights lie in the span of the supports, W = A^T X, so a task is a problem of N*K coefficients a class over
the Gram matrix of its supports, whatever the feature width; all tasks of a batch are solved at once. Inductive.
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
from ..parts.lbfgs import Point, minimise
from ..parts.task import work_dtype
from ..parts.tensors import flat_support, single
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Count, NonNegative, Positive, Settings


@dataclass(frozen=True)
class LinearProbeSettings(Settings):
    """The linear probe's settings."""

    c: Positive = 1.0
    """The inverse strength of the penalty |W|^2 / 2 against the summed loss."""
    intercept: bool = True
    """Add an offset a class, which is not penalised."""
    tol: NonNegative = 1e-4
    """The gradient's norm, over c times the number of supports, at which a task is solved."""
    max_iter: Count = 200
    """The most iterations."""


class LinearProbe(Head[LinearProbeSettings]):
    Settings = LinearProbeSettings

    @torch.no_grad()
    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N] = W q + b at the solution."""
        support, query = single(episodes)
        x, _ = flat_support(support)
        x = x.to(work_dtype(x.dtype))
        q = query.pooled().to(x.dtype)
        alpha, offset = Problem(x @ x.transpose(1, 2), support.present, self.settings).solve()
        # W itself is as wide as the features but there are only N of it: cheaper than query-by-support products.
        weight = alpha.transpose(1, 2) @ x
        return neutral(q @ weight.transpose(1, 2) + offset, query.present, support.present.any(2))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Logits follow from inner products, as the solution does."""
        return (FromGram(logits=self._from_products),)

    def _from_products(self, products: Products) -> Tensor:
        present = torch.ones_like(products.support, dtype=torch.bool)
        alpha, offset = Problem(products.among_supports, present, self.settings).solve()
        return products.query_support.flatten(2) @ alpha + offset


class Problem:
    """Multinomial logistic regression of B tasks over the Gram matrix of their M = N*K supports.

    minimise c * sum_i w_i CE(f_i, y_i) + tr(A^T G A) / 2 with f = G A + b, over A [M, N] and b [N]; w_i is 0 for an
    absent support. A class without supports takes no part. For two classes c is halved: scikit-learn then fits a
    single weight vector, whose penalty is twice that of a pair of opposite ones.

    gram: G [B, M, M], class by class; support_present: bool [B, N, K].
    """

    def __init__(self, gram: Tensor, support_present: Tensor, settings: LinearProbeSettings) -> None:
        self.gram, self.settings = gram, settings
        self.batch, self.ways, shots = support_present.shape
        self.rows = self.ways * shots
        class_present = support_present.any(2)
        c = torch.where(class_present.sum(1) == 2, settings.c / 2, settings.c).to(gram.dtype)
        self.weight = support_present.flatten(1).to(gram.dtype) * c[:, None]
        self.excluded = torch.where(class_present, 0.0, -1e30).to(gram.dtype)[:, None, :]
        label = torch.arange(self.ways, device=gram.device).repeat_interleave(shots)
        self.target = F.one_hot(label, self.ways).to(gram.dtype)

    def solve(self) -> tuple[Tensor, Tensor]:
        """The minimising A [B, M, N] and b [B, 1, N]."""
        start = self.gram.new_zeros(self.batch, (self.rows + 1) * self.ways)
        tolerance = self.settings.tol * self.weight.sum(1)
        return self._split(minimise(self.at, start, tolerance, self.settings.max_iter))

    def at(self, coefficients: Tensor) -> Point:
        """The objective at coefficients [B, (M + 1) * N], preconditioned by G, which makes the penalty plain."""
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
        """A [B, M, N] and b [B, 1, N] of coefficients [B, (M + 1) * N]."""
        both = coefficients.unflatten(1, (self.rows + 1, self.ways))
        return both[:, :-1], both[:, -1:]
