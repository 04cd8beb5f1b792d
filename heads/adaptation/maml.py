"""MAML: Model-Agnostic Meta-Learning (Finn, Abbeel and Levine, ICML 2017).

A classifier is adapted to each task by a few gradient steps on the supports, all weights at one fixed rate; its initial
weights are trained so that the adapted classifier does well on the queries. The derivative goes through the inner steps
(second order), or takes their gradients as constants (first order). Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.tensors import check_ways, flat_support, single, support_labels
from ..settings import CountOrNone, NonNegative, Recipe, Settings

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class MAMLSettings(Settings):
    """MAML's settings."""

    hidden: CountOrNone = 0
    """The width of one hidden layer with ReLU; 0 for a linear classifier."""
    rate: NonNegative = 0.01
    """The learning rate of the inner steps."""
    train_steps: CountOrNone = 5
    """Inner steps in training; 5 on miniImageNet."""
    test_steps: CountOrNone = 10
    """Inner steps in evaluation; 10 on miniImageNet."""
    first_order: bool = False
    """Take the inner gradients as constants."""
    level: NonNegative = 512.0
    """The mean squared length to which features are brought, as the base classes' are; 0: as they are. Whether an inner
    step at the published rate descends or overshoots depends on it, whatever the encoder's width."""
    zero_head: bool = True
    """The class columns begin at zero, so that no class position is preferred before training and one inner step is a
    nearest class mean by inner product; false: at random, as published."""


class MAML(Head[MAMLSettings]):
    Settings = MAMLSettings
    recipe = Recipe(
        steps=100,
        tasks=4,
        query=15,
        rate=1e-4,
        clip_value=10.0,
        evaluate_every=25,
        evaluate_episodes=200,
        patience=2,
    )
    factor: Tensor

    def __init__(self, inputs: Inputs, settings: MAMLSettings) -> None:
        super().__init__(inputs, settings)
        _, _, dim = inputs.one()
        self.register_buffer("factor", torch.ones(()))
        self.first = nn.Linear(dim, settings.hidden) if settings.hidden else None
        self.last = nn.Linear(settings.hidden or dim, inputs.way)
        if settings.zero_head:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def fit_base(self, base: FeatureBank) -> None:
        """Finds the factor that brings base features to ``level``."""
        (table,) = base.tables.values()
        pooled = table.pooled()
        square = pooled.x[pooled.present, 0].double().square().sum(1).mean()
        if self.settings.level and square > 0:
            self.factor.copy_((self.settings.level / square).sqrt())

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where there are more classes than the head was built for."""
        check_ways(episodes, self.inputs.way, "MAML")
        support, query = single(episodes)
        s, present = flat_support(support)
        dtype = self.last.weight.dtype
        steps = self.settings.train_steps if self.training else self.settings.test_steps
        label = support_labels(episodes).expand(episodes.batch, -1)
        adapted = self.adapt(s.to(dtype) * self.factor, label, present.to(dtype), steps, episodes.ways)
        logits = classify(adapted, query.pooled().to(dtype) * self.factor)[..., : episodes.ways]
        return neutral(logits, query.present, support.present.any(2))

    def adapt(self, x: Tensor, label: Tensor, weight: Tensor, steps: int, ways: int) -> Weights:
        """The weights of every task, each with a leading axis B, after ``steps`` inner steps.

        x: supports [B, S, D]; label: int64 [B, S]; weight: [B, S], 0 for absent supports and 1 for others.
        """
        # Each task has its own copy of the weights, so the gradient of the sum over tasks is every task's settings.
        current = {name: p.expand(x.shape[0], *p.shape) for name, p in self.named_parameters()}
        slope = grad(_support_loss)
        for _ in range(steps):
            step = slope(current, x, label, weight, ways)
            if self.settings.first_order:
                step = {name: value.detach() for name, value in step.items()}
            current = {name: p - self.settings.rate * step[name] for name, p in current.items()}
        return current


def classify(weights: Weights, x: Tensor) -> Tensor:
    """Logits [B, S, way] of x [B, S, D] by every task's own weights."""
    if "first.weight" in weights:
        x = F.relu(_affine(x, weights["first.weight"], weights["first.bias"]))
    return _affine(x, weights["last.weight"], weights["last.bias"])


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [B, S, D] through every task's own linear layer, [B, S, O]."""
    return x @ weight.transpose(1, 2) + bias[:, None]


def _support_loss(weights: Weights, x: Tensor, label: Tensor, weight: Tensor, ways: int) -> Tensor:
    """The sum over tasks of the mean cross-entropy over present supports (see :meth:`MAML.adapt` for shapes)."""
    logits = classify(weights, x)[..., :ways]
    each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label)
    return ((each * weight).sum(1) / weight.sum(1).clamp(min=1)).sum()
