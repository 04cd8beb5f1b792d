"""TIM: Transductive Information Maximization for Few-Shot Learning (Boudiaf et al., NeurIPS 2020).

A classifier that starts at the class means is fitted to three things: the supports' labels, confident predictions on
the queries (low conditional entropy) and predictions spread over all classes (high marginal entropy). Solved by
alternating closed-form updates (TIM-ADM; transductive/tim_adm.py) or by gradient descent (TIM-GD). Transductive: no
query label is used; the marginal entropy prefers balanced queries without being told the balance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UsageError
from ..head import Inputs
from ..metric.centred import CentredHead, CentredSettings
from ..parts import descent
from ..parts.task import Task
from ..settings import CountOrNone, NonNegative, Positive
from .sample_labels import SampleLabels
from .tim_adm import Alternation


@dataclass(frozen=True)
class TIMSettings(CentredSettings):
    """TIM's settings; the paper's features are of length one."""

    solver: Literal["adm", "gd"] = "adm"
    """Alternating closed-form updates, or gradient descent by Adam."""
    guard: bool = True
    """Shorten or leave out an alternating update that would raise the objective; false takes each as published."""
    iterations: CountOrNone = 0
    """Steps of the solver; 0 means the paper's: 1000 of gradient descent, 150 alternating ones."""
    rate: Positive = 1e-4
    """The learning rate of gradient descent."""
    temperature: Positive = 15.0
    """Tau of p(k|x) ~ exp(-tau/2 |w_k - x|^2); the paper's is 15."""
    distance: Literal["euclidean", "cosine"] = "euclidean"
    """The Euclidean distance, or the cosine: p ~ exp(tau cos(w_k, x)), as in the re-implementation in easyfsl (by
    gradient descent only)."""
    support_weight: NonNegative = 0.1
    """The weight of the cross-entropy of the supports, the paper's lambda."""
    marginal_weight: NonNegative = 1.0
    """The weight of the marginal entropy of the queries' predictions."""
    conditional_weight: NonNegative = 0.1
    """The weight of the conditional entropy of the queries' predictions, the paper's alpha."""


class TIM(CentredHead[TIMSettings]):
    Settings = TIMSettings

    def __init__(self, inputs: Inputs, settings: TIMSettings) -> None:
        super().__init__(inputs, settings)
        if settings.solver == "adm" and settings.distance == "cosine":
            raise UsageError("The alternating solver has no closed form for the cosine; use solver=gd.")

    def decide(self, task: Task) -> Tensor:
        """Logits [B, Q, N] before the softmax, at the fitted weights."""
        return self.logits(task.query, self.fit(task), task.class_present)

    @torch.no_grad()
    def fit(self, task: Task) -> Tensor:
        """The fitted weights [B, N, D]."""
        if self.settings.solver == "gd":
            return self._descend(task)
        return self.alternation(task).solved(self.settings.iterations or 150)

    def alternation(self, task: Task) -> Alternation:
        """The alternating solver at its start."""
        return Alternation(
            task,
            logits=self.logits,
            support_weight=self.settings.support_weight,
            marginal_weight=self.settings.marginal_weight,
            conditional_weight=self.settings.conditional_weight,
            guard=self.settings.guard,
        )

    def logits(self, x: Tensor, w: Tensor, class_present: Tensor) -> Tensor:
        """Logits [B, M, N] of samples x [B, M, D] and weights w [B, N, D]; never for a class without support."""
        if self.settings.distance == "cosine":
            logits = descent.cosine_logits(F.normalize(x, dim=-1), w, self.settings.temperature)
        else:
            logits = descent.euclidean_logits(x, w, self.settings.temperature)
        return logits.masked_fill(~class_present[:, None, :], descent.NEVER)

    def _descend(self, task: Task) -> Tensor:
        """TIM-GD: the weights after Adam's steps, with gradients written out."""
        labels = SampleLabels(task)
        return descent.fitted(
            torch.cat([task.support.flatten(1, 2), task.query], 1),
            task.means(),
            gradient=lambda logits: self.logit_gradient(logits, labels),
            class_present=task.class_present,
            distance=self.settings.distance,
            temperature=self.settings.temperature,
            rate=self.settings.rate,
            iterations=self.settings.iterations or 1000,
        )

    def logit_gradient(self, logits: Tensor, labels: SampleLabels) -> Tensor:
        """The gradient [B, M, N] of the objective with respect to logits [B, M, N], supports first."""
        settings, cut = self.settings, labels.hot.shape[1]
        logs = torch.log_softmax(logits, -1)
        p = logs.exp()
        support = (p[:, :cut] - labels.hot) * (settings.support_weight * labels.support_share)
        q, log_q = p[:, cut:], logs[:, cut:]
        marginal = (q * labels.query_share).sum(1, keepdim=True).clamp(min=1e-12).log()
        # d/dp of (- marginal entropy) and of (conditional entropy), up to constants that the softmax removes
        pull = settings.marginal_weight * marginal - settings.conditional_weight * log_q
        query = q * (pull - (q * pull).sum(-1, keepdim=True)) * labels.query_share
        return torch.cat([support, query], 1)

    def objective(self, task: Task, w: Tensor) -> Tensor:
        """lambda CE(supports) - marginal entropy + alpha conditional entropy, [B], at weights w [B, N, D]."""
        settings, labels = self.settings, SampleLabels(task)
        support = torch.log_softmax(self.logits(task.support.flatten(1, 2), w, task.class_present), -1)
        logs = torch.log_softmax(self.logits(task.query, w, task.class_present), -1)
        p = logs.exp()
        cross = -(support * labels.hot * labels.support_share).sum((1, 2))
        marginal = (p * labels.query_share).sum(1)
        high = -(marginal * marginal.clamp(min=1e-12).log()).sum(1)
        low = -(p * logs * labels.query_share).sum((1, 2))
        value = settings.support_weight * cross - settings.marginal_weight * high
        return value + settings.conditional_weight * low
