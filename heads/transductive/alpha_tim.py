"""alpha-TIM: Realistic Evaluation of Transductive Few-Shot Learning (Veilleux et al., NeurIPS 2021).

TIM with Tsallis's alpha-entropies H_a(p) = (1 - sum_k p_k^a) / (a - 1) in place of Shannon's. The larger a is, the less
the entropy of the mean prediction asks for equally many queries of every class, so that unbalanced queries cost little.
A classifier that starts at the class means descends by Adam. Transductive: no query label and no class balance is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..metric.centred import CentredHead, CentredSettings
from ..parts import descent
from ..parts.task import Task
from ..settings import Count, NonNegative, Positive
from .sample_labels import SampleLabels

_EPSILON = 1e-12  # what the released code adds to probabilities, but for the mean over the queries


@dataclass(frozen=True)
class AlphaTIMSettings(CentredSettings):
    """alpha-TIM's settings; the paper's features are of length one."""

    alpha: NonNegative = 0.0
    """The a of every entropy, 1 for Shannon's; 0: the released values, 2 for one shot, 7 for five or more, else 5."""
    alpha_support: NonNegative = 0.0
    """The a of the supports' cross-entropy where ``cross_entropy=alpha``; 0: that of ``alpha``."""
    alpha_marginal: NonNegative = 0.0
    """The a of the entropy of the queries' mean prediction; 0: that of ``alpha``."""
    alpha_conditional: NonNegative = 0.0
    """The a of the entropies of the queries' predictions; 0: that of ``alpha``."""
    cross_entropy: Literal["shannon", "alpha", "alpha-released"] = "shannon"
    """The supports' cross-entropy: -log p, or (p^(1 - a) - 1) / (a - 1), or the latter with the released code's sign,
    which rewards supports that are classified wrongly."""
    iterations: Count = 1000
    """Steps of Adam."""
    rate: Positive = 1e-4
    """The learning rate."""
    temperature: Positive = 15.0
    """Tau of p(k|x) ~ exp(-tau/2 |w_k - x|^2)."""
    support_weight: NonNegative = 1.0
    """The weight of the cross-entropy of the supports."""
    marginal_weight: NonNegative = 1.0
    """The weight of the entropy of the queries' mean prediction."""
    conditional_weight: NonNegative = 1.0
    """The weight of the mean entropy of the queries' predictions."""


class Alphas(NamedTuple):
    """The a of each term."""

    support: float
    marginal: float
    conditional: float


class AlphaTIM(CentredHead[AlphaTIMSettings]):
    Settings = AlphaTIMSettings

    def decide(self, task: Task) -> Tensor:
        """Logits [B, Q, N] before the softmax, at the fitted weights."""
        return self.logits(task.query, self.fit(task), task.class_present)

    @torch.no_grad()
    def fit(self, task: Task) -> Tensor:
        """The fitted weights [B, N, D]."""
        labels, alphas = SampleLabels(task), self.alphas(task.support.shape[2])
        return descent.fitted(
            torch.cat([task.support.flatten(1, 2), task.query], 1),
            task.means(),
            gradient=lambda logits: self.logit_gradient(logits, labels, alphas),
            class_present=task.class_present,
            distance="euclidean",
            temperature=self.settings.temperature,
            rate=self.settings.rate,
            iterations=self.settings.iterations,
        )

    @property
    def sign(self) -> int:
        """The sign of the supports' cross-entropy."""
        return -1 if self.settings.cross_entropy == "alpha-released" else 1

    def alphas(self, shots: int) -> Alphas:
        """The a of each term for tasks of so many shots."""
        given = self.settings
        common = given.alpha or {1: 2.0}.get(shots, 7.0 if shots >= 5 else 5.0)
        return Alphas(
            given.alpha_support or common, given.alpha_marginal or common, given.alpha_conditional or common
        )

    def logits(self, x: Tensor, w: Tensor, class_present: Tensor) -> Tensor:
        """Logits [B, M, N] of samples x [B, M, D] and weights w [B, N, D]; never for a class without support."""
        logits = descent.euclidean_logits(x, w, self.settings.temperature)
        return logits.masked_fill(~class_present[:, None, :], descent.NEVER)

    def objective(self, task: Task, w: Tensor) -> Tensor:
        """CE(supports) - H_a(mean prediction) + mean H_a(prediction), weighted, [B], at weights w [B, N, D]."""
        given, labels, alphas = self.settings, SampleLabels(task), self.alphas(task.support.shape[2])
        support = torch.softmax(self.logits(task.support.flatten(1, 2), w, task.class_present), -1)
        p = torch.softmax(self.logits(task.query, w, task.class_present), -1)
        own = (support * labels.hot).sum(-1, keepdim=True) + _EPSILON
        surprise = -own.log() if given.cross_entropy == "shannon" else _surprise(own, alphas.support)
        cross = self.sign * (surprise * labels.support_share).sum((1, 2))
        marginal = _entropy((p * labels.query_share).sum(1), alphas.marginal)
        conditional = (_entropy(p + _EPSILON, alphas.conditional) * labels.query_share[..., 0]).sum(1)
        value = given.support_weight * cross - given.marginal_weight * marginal
        return value + given.conditional_weight * conditional

    def logit_gradient(self, logits: Tensor, labels: SampleLabels, alphas: Alphas) -> Tensor:
        """The gradient [B, M, N] of the objective with respect to logits [B, M, N], supports first."""
        given, cut = self.settings, labels.hot.shape[1]
        p = torch.softmax(logits, -1)
        s, q = p[:, :cut], p[:, cut:]
        own = (s * labels.hot).sum(-1, keepdim=True)
        # minus d/dp_y of -log(p_y + e), or of the alpha form, times p_y: what softmax's derivative is multiplied by
        power = -1.0 if given.cross_entropy == "shannon" else -alphas.support
        slope = self.sign * own * (own + _EPSILON) ** power
        support = slope * (s - labels.hot) * (given.support_weight * labels.support_share)
        mean = (q * labels.query_share).sum(1, keepdim=True)
        pull = given.conditional_weight * _entropy_slope(q + _EPSILON, alphas.conditional)
        pull = pull - given.marginal_weight * _entropy_slope(mean, alphas.marginal)
        query = q * (pull - (q * pull).sum(-1, keepdim=True)) * labels.query_share
        return torch.cat([support, query], 1)


def _surprise(p: Tensor, alpha: float) -> Tensor:
    """(p^(1 - a) - 1) / (a - 1), which is -log p at a = 1."""
    return -p.log() if alpha == 1 else (p ** (1 - alpha) - 1) / (alpha - 1)


def _entropy(p: Tensor, alpha: float) -> Tensor:
    """H_a [...] of p [..., N]; Shannon's at a = 1."""
    if alpha == 1:
        return -(p * p.clamp(min=_EPSILON).log()).sum(-1)
    return (1 - (p**alpha).sum(-1)) / (alpha - 1)


def _entropy_slope(p: Tensor, alpha: float) -> Tensor:
    """dH_a/dp [..., N], up to a constant, which the softmax removes."""
    if alpha == 1:
        return -p.clamp(min=_EPSILON).log()
    return p.clamp(min=_EPSILON) ** (alpha - 1) * (-alpha / (alpha - 1))
