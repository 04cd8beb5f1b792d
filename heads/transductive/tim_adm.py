"""TIM-ADM, the alternating-direction solver of TIM (Boudiaf et al., NeurIPS 2020, section 3.3 and proposition 1).

Assignments q of the queries join the weights w as a second unknown of the objective

    F(w, q) = lambda CE(supports) + sum_k m_k log m_k + mean_i sum_k q_ik (log q_ik - (1 + alpha) log p_ik(w)),

with m the mean of q over the queries (TIM's weight of the marginal entropy divided out); at q = p it is TIM's. Each is
updated in turn by a closed form. Neither form is the exact minimiser: that of q drops the normaliser of each query
inside the sum over queries, that of w replaces a log-sum-exp, which is not concave for far samples, by its tangent. So
a published update may raise F. Here it is taken where it does not; elsewhere q stays, and the move of w, which is a
descent direction, is made with a step that halves at each refusal and doubles again, up to the published one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..parts.task import Task
from .sample_labels import SampleLabels

_TINY = 1e-12


class Alternation:
    """The alternating solver's state for a batch of tasks.

    weights: [B, N, D]; assignments: [B, Q, N], zero rows for absent queries; step: [B], the share of the published
    move of the weights that is made next. logits: a function of samples [B, M, D], weights [B, N, D] and which classes
    are present, bool [B, N], with values [B, M, N]; guard: whether an update that would raise F is held back.
    """

    def __init__(
        self,
        task: Task,
        *,
        logits: Callable[[Tensor, Tensor, Tensor], Tensor],
        support_weight: float,
        marginal_weight: float,
        conditional_weight: float,
        guard: bool,
    ) -> None:
        self.task, self.labels, self.logits, self.guard = task, SampleLabels(task), logits, guard
        self.alpha = conditional_weight / max(marginal_weight, _TINY)
        self.support_weight = support_weight / max(marginal_weight, _TINY)
        # What a support weighs beside a query, both summed: lambda / (1 + alpha) to |S| / |Q|.
        self.ratio = support_weight / max(marginal_weight + conditional_weight, _TINY)
        self.support = task.support.flatten(1, 2)
        self.support_present = task.support_present.flatten(1, 2)[..., None].to(self.support.dtype)
        self.query_present = task.query_present[..., None].to(self.support.dtype)
        queries = self.query_present.sum(1, keepdim=True).clamp(min=1)
        self.balance = self.support_present.sum(1, keepdim=True) / queries
        self.weights = task.means()
        self.assignments = self.log_posteriors(self.weights)[1].exp() * self.query_present
        self.step = torch.ones_like(self.support[:, 0, 0])

    def solved(self, iterations: int) -> Tensor:
        """The weights [B, N, D] after so many updates of assignments and weights."""
        posteriors = self.log_posteriors(self.weights)
        for _ in range(iterations):
            self.update_assignments(posteriors)
            posteriors = self.update_weights(posteriors)
        return self.weights

    def log_posteriors(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """log p of the supports [B, N*K, N] and of the queries [B, Q, N] at weights [B, N, D]."""
        classes = self.task.class_present
        support = self.logits(self.support, weights, classes)
        query = self.logits(self.task.query, weights, classes)
        return torch.log_softmax(support, -1), torch.log_softmax(query, -1)

    def objective(self, posteriors: tuple[Tensor, Tensor], assignments: Tensor) -> Tensor:
        """F [B] of log posteriors and assignments [B, Q, N]."""
        support, query = posteriors
        cross = -(support * self.labels.hot * self.labels.support_share).sum((1, 2))
        mean = (assignments * self.labels.query_share).sum(1)
        spread = (mean * mean.clamp(min=_TINY).log()).sum(1)
        apart = assignments * (assignments.clamp(min=_TINY).log() - (1 + self.alpha) * query)
        return self.support_weight * cross + spread + (apart * self.labels.query_share).sum((1, 2))

    def update_assignments(self, posteriors: tuple[Tensor, Tensor]) -> None:
        """q ~ p^(1 + alpha) / sqrt(sum_i p_i^(1 + alpha)), where F does not rise by it."""
        sharp = ((1 + self.alpha) * posteriors[1]).exp() * self.query_present
        found = sharp / sharp.sum(1, keepdim=True).clamp(min=_TINY).sqrt()
        found = found / found.sum(-1, keepdim=True).clamp(min=_TINY)
        if self.guard:
            before = self.objective(posteriors, self.assignments)
            falls = self.objective(posteriors, found) <= before
            found = torch.where(falls[:, None, None], found, self.assignments)
        self.assignments = found

    def update_weights(self, posteriors: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Moves the weights where F does not rise by it; returns the log posteriors at the weights then held."""
        target = self.published_weights(posteriors)
        if not self.guard:
            self.weights = target
            return self.log_posteriors(target)
        moved = torch.lerp(self.weights, target, self.step[:, None, None])
        found = self.log_posteriors(moved)
        before = self.objective(posteriors, self.assignments)
        falls = self.objective(found, self.assignments) <= before
        self.step = torch.where(falls, (2 * self.step).clamp(max=1), self.step / 2)
        falls = falls[:, None, None]
        self.weights = torch.where(falls, moved, self.weights)
        return torch.where(falls, found[0], posteriors[0]), torch.where(falls, found[1], posteriors[1])

    def published_weights(self, posteriors: tuple[Tensor, Tensor]) -> Tensor:
        """The closed form of the weights [B, N, D], with the sums over supports and queries of proposition 1."""
        p_support = posteriors[0].exp() * self.support_present
        p_query = posteriors[1].exp() * self.query_present
        hot, q = self.labels.hot, self.assignments
        upper = self.ratio * _pulled(hot, p_support, self.support, self.weights)
        upper = upper + self.balance * _pulled(q, p_query, self.task.query, self.weights)
        lower = (self.ratio * hot.sum(1) + (self.balance * q).sum(1)).clamp(min=_TINY)
        return torch.where(self.task.class_present[..., None], upper / lower[..., None], self.weights)


def _pulled(target: Tensor, p: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """sum_i ( target_ik x_i + p_ik (w_k - x_i) ), [B, N, D]."""
    return (target - p).transpose(1, 2) @ x + p.sum(1)[..., None] * w
