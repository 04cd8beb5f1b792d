"""TIM: Transductive Information Maximization for Few-Shot Learning (Boudiaf et al., NeurIPS 2020).

A classifier that starts at the class means is fitted to three things: the supports' labels, confident predictions on
the queries (low conditional entropy) and predictions spread over all classes (high marginal entropy). Solved by
gradient descent (TIM-GD) or by alternating closed-form updates (TIM-ADM). Transductive: no query label is used; the
marginal entropy prefers balanced queries without being told the balance.
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

_NEVER = -1e4  # the logit of a class without support


@dataclass(frozen=True)
class TIMSettings(CentredSettings):
    """TIM's settings; the paper's features are of length one."""

    solver: Literal["gd", "adm"] = "gd"
    """Gradient descent by Adam, or alternating closed-form updates."""
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
        return self._alternate(task) if self.settings.solver == "adm" else self._descend(task)

    def logits(self, x: Tensor, w: Tensor, class_present: Tensor) -> Tensor:
        """Logits [B, M, N] of samples x [B, M, D] and weights w [B, N, D]; never for a class without support."""
        if self.settings.distance == "cosine":
            logits = descent.cosine_logits(F.normalize(x, dim=-1), w, self.settings.temperature)
        else:
            logits = descent.euclidean_logits(x, w, self.settings.temperature)
        return logits.masked_fill(~class_present[:, None, :], _NEVER)

    def _descend(self, task: Task) -> Tensor:
        """TIM-GD: the weights after Adam's steps, with gradients written out."""
        temperature, labels = self.settings.temperature, SampleLabels(task)
        cosine = self.settings.distance == "cosine"
        x = torch.cat([task.support.flatten(1, 2), task.query], 1)
        x = F.normalize(x, dim=-1) if cosine else x
        logits_of = descent.cosine_logits if cosine else descent.euclidean_logits
        gradient_of = descent.cosine_gradient if cosine else descent.euclidean_gradient
        class_absent = None if bool(task.class_present.all()) else ~task.class_present[:, None, :]
        w, optimiser = task.means(), descent.Descent("adam", self.settings.rate)
        for _ in range(self.settings.iterations or 1000):
            logits = logits_of(x, w, temperature)
            if class_absent is not None:
                logits = logits.masked_fill(class_absent, _NEVER)
            w = optimiser.step(w, gradient_of(x, w, temperature, self.logit_gradient(logits, labels)))
        return w

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

    def _alternate(self, task: Task) -> Tensor:
        """TIM-ADM: the weights by closed forms, of assignments q and of weights in turn (paper, proposition 1)."""
        settings, labels = self.settings, SampleLabels(task)
        s, w = task.support.flatten(1, 2), task.means()
        alpha = settings.conditional_weight / max(settings.marginal_weight, 1e-12)
        ratio = settings.support_weight / (1 + alpha)
        support_present = task.support_present.flatten(1, 2)[..., None].to(s.dtype)
        query_present = task.query_present[..., None].to(s.dtype)
        queries = query_present.sum(1, keepdim=True).clamp(min=1)
        balance = (support_present.sum(1, keepdim=True) / queries).to(s.dtype)
        for _ in range(settings.iterations or 150):
            p_support = torch.softmax(self.logits(s, w, task.class_present), -1) * support_present
            p = torch.softmax(self.logits(task.query, w, task.class_present), -1) * query_present
            sharp = p ** (1 + alpha)
            q = sharp / sharp.sum(1, keepdim=True).clamp(min=1e-12).sqrt()
            q = q / q.sum(-1, keepdim=True).clamp(min=1e-12)
            upper = ratio * _pulled(labels.hot, p_support, s, w) + balance * _pulled(q, p, task.query, w)
            lower = ratio * labels.hot.sum(1) + (balance * q).sum(1)
            w = torch.where(task.class_present[..., None], upper / lower.clamp(min=1e-12)[..., None], w)
        return w


class SampleLabels:
    """What the objective knows of a task's samples.

    hot: labels of the supports [B, N*K, N], zero rows for absent ones; support_share, query_share: the weight of each
    support [B, N*K, 1] and of each query [B, Q, 1] in a mean over those present.
    """

    def __init__(self, task: Task) -> None:
        batch, ways, shots = task.support_present.shape
        present, query_present = task.support_present.flatten(1, 2), task.query_present
        dtype = task.query.dtype
        hot = torch.eye(ways, dtype=dtype, device=present.device).repeat_interleave(shots, 0)
        self.hot = hot.expand(batch, -1, -1) * present[..., None].to(dtype)
        self.support_share = (present / present.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)
        queries = query_present.sum(1, keepdim=True).clamp(min=1)
        self.query_share = (query_present / queries)[..., None].to(dtype)


def _pulled(target: Tensor, p: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """sum_i ( target_ik x_i + p_ik (w_k - x_i) ), [B, N, D]."""
    return (target - p).transpose(1, 2) @ x + p.sum(1)[..., None] * w
