"""TIM: Transductive Information Maximization for Few-Shot Learning (Boudiaf et al., NeurIPS 2020).

A classifier that starts at the class means is fitted to three things: the supports' labels, confident predictions on
the queries (low conditional entropy) and predictions spread over all classes (high marginal entropy). Solved by
gradient descent (TIM-GD) or by alternating closed-form updates (TIM-ADM). Transductive: no query label is used; the
marginal entropy prefers balanced queries without being told the balance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UsageError
from ..head import Inputs
from ..metric.centred import CentredHead
from ..parts import descent
from ..parts.absence import neutral
from ..parts.task import Task
from ..settings import Settings

_NEVER = -1e4  # logit of a class without support


@dataclass(frozen=True)
class TIMSettings(Settings):
    """solver: "gd" (Adam, ``iterations`` 0 means the paper's 1000, ``rate``) or "adm" (150).

    temperature: tau of p(k|x) ~ exp(-tau/2 |w_k - x|^2), the paper's 15. distance: "euclidean", or "cosine" for
    p ~ exp(tau cos(w_k, x)) (the easyfsl re-implementation; gradient descent only).
    support_weight, marginal_weight, conditional_weight: of the three terms (paper: lambda .1, 1, alpha .1).
    transform: of the features, see SimpleShot (paper: unit length).
    """

    solver: str = "gd"
    iterations: int = 0
    rate: float = 1e-4
    temperature: float = 15.0
    distance: str = "euclidean"
    support_weight: float = 0.1
    marginal_weight: float = 1.0
    conditional_weight: float = 0.1
    transform: str = "l2n"


class TIM(CentredHead):
    settings_class = TIMSettings

    def __init__(self, inputs: Inputs, settings: TIMSettings | None = None) -> None:
        super().__init__(inputs, settings)
        given = self.settings
        if given.solver not in ("gd", "adm"):
            raise UsageError(f"solver={given.solver!r} is not known; use gd or adm.")
        if given.distance not in ("euclidean", "cosine"):
            raise UsageError(f"distance={given.distance!r} is not known; use euclidean or cosine.")
        if given.solver == "adm" and given.distance == "cosine":
            raise UsageError("The alternating solver has no closed form for the cosine; use solver=gd.")

    def of_task(self, task: Task) -> Tensor:
        """Logits before the softmax, at the fitted weights."""
        return neutral(self.logits(task.query, self.fit(task), task.known), task.asked, task.known)

    @torch.no_grad()
    def fit(self, task: Task) -> Tensor:
        """Fitted weights [B, N, D]."""
        return self._alternate(task) if self.settings.solver == "adm" else self._descend(task)

    def logits(self, x: Tensor, w: Tensor, known: Tensor) -> Tensor:
        """[B, M, N] of samples x [B, M, D]; never a class without support."""
        kind = descent.cosine_logits if self.settings.distance == "cosine" else descent.euclidean_logits
        if self.settings.distance == "cosine":
            x = F.normalize(x, dim=-1)
        return kind(x, w, self.settings.temperature).masked_fill(~known[:, None, :], _NEVER)

    def _descend(self, task: Task) -> Tensor:
        given = self.settings
        labels = _Labels(task)
        cosine = given.distance == "cosine"
        x = torch.cat([task.support.flatten(1, 2), task.query], 1)
        x = F.normalize(x, dim=-1) if cosine else x
        logits_of = descent.cosine_logits if cosine else descent.euclidean_logits
        gradient_of = descent.cosine_gradient if cosine else descent.euclidean_gradient
        unknown = None if bool(task.known.all()) else ~task.known[:, None, :]
        w, optimiser = task.means(), descent.Descent("adam", given.rate)
        for _ in range(given.iterations or 1000):
            logits = logits_of(x, w, given.temperature)
            if unknown is not None:
                logits = logits.masked_fill(unknown, _NEVER)
            w = optimiser.step(w, gradient_of(x, w, given.temperature, self.logit_gradient(logits, labels)))
        return w

    def logit_gradient(self, logits: Tensor, labels: _Labels) -> Tensor:
        """Gradient of the objective with respect to logits [B, M, N], supports first."""
        given, cut = self.settings, labels.hot.shape[1]
        logs = torch.log_softmax(logits, -1)
        p = logs.exp()
        support = (p[:, :cut] - labels.hot) * (given.support_weight * labels.support_share)
        q, log_q = p[:, cut:], logs[:, cut:]
        marginal = (q * labels.query_share).sum(1, keepdim=True).clamp(min=1e-12).log()
        # d/dp of (- marginal entropy) and of (conditional entropy), up to constants that the softmax removes
        pull = given.marginal_weight * marginal - given.conditional_weight * log_q
        query = q * (pull - (q * pull).sum(-1, keepdim=True)) * labels.query_share
        return torch.cat([support, query], 1)

    def objective(self, task: Task, w: Tensor) -> Tensor:
        """lambda CE(supports) - marginal entropy + alpha conditional entropy, [B]."""
        given, labels = self.settings, _Labels(task)
        support = torch.log_softmax(self.logits(task.support.flatten(1, 2), w, task.known), -1)
        logs = torch.log_softmax(self.logits(task.query, w, task.known), -1)
        p = logs.exp()
        cross = -(support * labels.hot * labels.support_share).sum((1, 2))
        marginal = (p * labels.query_share).sum(1)
        high = -(marginal * marginal.clamp(min=1e-12).log()).sum(1)
        low = -(p * logs * labels.query_share).sum((1, 2))
        return given.support_weight * cross - given.marginal_weight * high + given.conditional_weight * low

    def _alternate(self, task: Task) -> Tensor:
        """TIM-ADM: auxiliary assignments q in closed form, then weights in closed form (paper, proposition 1)."""
        given, labels = self.settings, _Labels(task)
        s, w = task.support.flatten(1, 2), task.means()
        alpha = given.conditional_weight / max(given.marginal_weight, 1e-12)
        ratio = given.support_weight / (1 + alpha)
        here = task.shown.flatten(1, 2)[..., None].to(s.dtype)
        there = task.asked[..., None].to(s.dtype)
        balance = (here.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)).to(s.dtype)
        for _ in range(given.iterations or 150):
            p_support = torch.softmax(self.logits(s, w, task.known), -1) * here
            p = torch.softmax(self.logits(task.query, w, task.known), -1) * there
            sharp = p ** (1 + alpha)
            q = sharp / sharp.sum(1, keepdim=True).clamp(min=1e-12).sqrt()
            q = q / q.sum(-1, keepdim=True).clamp(min=1e-12)
            upper = ratio * _pulled(labels.hot, p_support, s, w) + balance * _pulled(q, p, task.query, w)
            lower = ratio * labels.hot.sum(1) + (balance * q).sum(1)
            w = torch.where(task.known[..., None], upper / lower.clamp(min=1e-12)[..., None], w)
        return w


class _Labels:
    """hot: labels of the supports [B, N*K, N], zero rows for absent ones; the weight of a support and of a query."""

    def __init__(self, task: Task) -> None:
        batch, ways, shots = task.shown.shape
        shown, asked = task.shown.flatten(1, 2), task.asked
        dtype = task.query.dtype
        hot = torch.eye(ways, dtype=dtype, device=shown.device).repeat_interleave(shots, 0)
        self.hot = hot.expand(batch, -1, -1) * shown[..., None].to(dtype)
        self.support_share = (shown / shown.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)
        self.query_share = (asked / asked.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)


def _pulled(target: Tensor, p: Tensor, x: Tensor, w: Tensor) -> Tensor:
    """sum_i ( target_ik x_i + p_ik (w_k - x_i) ), [B, N, D]."""
    return (target - p).transpose(1, 2) @ x + p.sum(1)[..., None] * w
