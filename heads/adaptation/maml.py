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
from ..settings import Recipe, Settings

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class MAMLSettings(Settings):
    """hidden: width of one hidden layer with ReLU; 0 for a linear classifier.

    rate: the inner step. train_steps, test_steps: inner steps in training and evaluation (mini-ImageNet: 5 and 10).
    first_order: take the inner gradients as constants.
    level: mean squared length that features are brought to, as the base classes' are; 0: as they are. Whether an inner
        step at the published rate descends or overshoots depends on it, whatever the encoder's width.
    zero_head: start the class columns at zero (then no class position is preferred before training, and one inner step
        is a nearest class mean by inner product); False is the published random start.
    """

    hidden: int = 0
    rate: float = 0.01
    train_steps: int = 5
    test_steps: int = 10
    first_order: bool = False
    level: float = 512.0
    zero_head: bool = True


class MAML(Head):
    settings_class = MAMLSettings
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
    position_tied = True
    factor: Tensor

    def __init__(self, inputs: Inputs, settings: MAMLSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own: MAMLSettings = self.settings
        _, _, dim = inputs.one()
        self.register_buffer("factor", torch.ones(()))
        self.first = nn.Linear(dim, own.hidden) if own.hidden else None
        self.last = nn.Linear(own.hidden or dim, inputs.way)
        if own.zero_head:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def fit_base(self, base: FeatureBank) -> None:
        """Measures the features that inner steps will see."""
        (table,) = base.tables.values()
        pooled = table.pooled()
        square = pooled.x[pooled.present, 0].double().square().sum(1).mean()
        if self.settings.level and square > 0:
            self.factor.copy_((self.settings.level / square).sqrt())

    def forward(self, episodes: Episodes) -> Tensor:
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
        """Weights of every task, each with a leading axis B, after ``steps`` inner steps.

        x [B, S, D]; label int64 [B, S]; weight [B, S] is 0 for absent supports.
        """
        # Each task has its own copy of the weights, so the gradient of the sum over tasks is every task's own.
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
    return x @ weight.transpose(1, 2) + bias[:, None]


def _support_loss(weights: Weights, x: Tensor, label: Tensor, weight: Tensor, ways: int) -> Tensor:
    """Sum over tasks of the mean cross-entropy over present supports."""
    logits = classify(weights, x)[..., :ways]
    each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label)
    return ((each * weight).sum(1) / weight.sum(1).clamp(min=1)).sum()
