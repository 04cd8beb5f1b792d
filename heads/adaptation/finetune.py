"""Fine-tuning: A Closer Look at Few-shot Classification (Chen et al., ICLR 2019), Baseline and Baseline++.

A classifier over frozen features is fitted to the supports by gradient descent: a linear one (Baseline), or one of
cosine similarities (Baseline++). All episodes descend at once, in the coordinates of their supports' span. Inductive.
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
from ..settings import CountOrNone, NonNegative, Positive, Share

_NEVER = -1e4  # the logit of a class without support


@dataclass(frozen=True)
class FineTuneSettings(CentredSettings):
    """The settings of fine-tuning."""

    classifier: Literal["cosine", "linear"] = "cosine"
    """Baseline++ or Baseline."""
    scale: Positive = 10.0
    """The factor of the cosine in the loss."""
    start: Literal["prototypes", "zero"] = "prototypes"
    """The first weights: class means, or zero (linear only; the loss is convex). The paper starts at random, which
    would make a result depend on more than the episode."""
    steps: CountOrNone = 100
    """Passes over all supports; the paper makes 100 epochs of mini-batches of four."""
    optimiser: Literal["sgd", "adam"] = "sgd"
    """SGD with momentum, dampening and decay as published, or Adam."""
    rate: Positive = 0.01
    """The learning rate; .01 as published."""
    momentum: Share = 0.9
    """The momentum of SGD."""
    dampening: Share = 0.9
    """The dampening of SGD."""
    decay: NonNegative = 0.001
    """The weight decay."""


class FineTune(CentredHead[FineTuneSettings]):
    Settings = FineTuneSettings

    def __init__(self, inputs: Inputs, settings: FineTuneSettings) -> None:
        super().__init__(inputs, settings)
        if settings.classifier == "cosine" and settings.start == "zero":
            raise UsageError("A cosine classifier has no direction at zero; use start=prototypes.")

    @torch.no_grad()
    def decide(self, task: Task) -> Tensor:
        """Logits [B, Q, N] of the queries at the fitted weights."""
        cosine = self.settings.classifier == "cosine"
        support, query = task.support.flatten(1, 2), task.query
        if cosine:
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        start = task.means()
        if self.settings.start == "zero":
            start = torch.zeros_like(start)
        if self.settings.optimiser == "sgd":
            # means lie in the span of the supports (scaled or not), so they can be expressed there
            places = torch.cat([start, query], 1)
            support, places = descent.span_coordinates(support, places)
            start, query = places.split([start.shape[1], query.shape[1]], 1)
        fitted_logits = self._cosine_logits if cosine else self._linear_logits
        return fitted_logits(task, support, query, start)

    def _cosine_logits(self, task: Task, support: Tensor, query: Tensor, w: Tensor) -> Tensor:
        """Logits [B, Q, N] of a cosine classifier that descends from weights w [B, N, D]."""
        optimiser, residual = self._descent(), _Residual(task)
        for _ in range(self.settings.steps):
            gradient = residual(descent.cosine_logits(support, w, self.settings.scale))
            w = optimiser.step(w, descent.cosine_gradient(support, w, self.settings.scale, gradient))
        return descent.cosine_logits(query, w, self.settings.scale)

    def _linear_logits(self, task: Task, support: Tensor, query: Tensor, w: Tensor) -> Tensor:
        """Logits [B, Q, N] of a linear classifier that descends from weights w [B, N, D] and biases of zero.

        Weights and biases are one: every sample has a last coordinate of one.
        """
        support, query = _with_one(support), _with_one(query)
        w = F.pad(w, (0, 1))
        optimiser, residual = self._descent(), _Residual(task)
        for _ in range(self.settings.steps):
            gradient = residual(support @ w.transpose(1, 2))
            w = optimiser.step(w, gradient.transpose(1, 2) @ support)
        return query @ w.transpose(1, 2)

    def _descent(self) -> descent.Descent:
        settings = self.settings
        return descent.Descent(
            settings.optimiser,
            settings.rate,
            momentum=settings.momentum,
            dampening=settings.dampening,
            decay=settings.decay,
        )


class _Residual:
    """The gradient of the supports' mean cross-entropy with respect to their logits: (softmax - label) / count."""

    def __init__(self, task: Task) -> None:
        ways, shots = task.support_present.shape[1:]
        dtype = task.support.dtype
        present = task.support_present.flatten(1, 2)
        self.hot = torch.eye(ways, dtype=dtype, device=present.device).repeat_interleave(shots, 0)
        self.share = (present / present.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)
        self.class_absent = None if bool(task.class_present.all()) else ~task.class_present[:, None, :]

    def __call__(self, logits: Tensor) -> Tensor:
        """The gradient [B, N*K, N] at logits [B, N*K, N] of the supports."""
        if self.class_absent is not None:
            logits = logits.masked_fill(self.class_absent, _NEVER)
        return (torch.softmax(logits, -1) - self.hot) * self.share


def _with_one(x: Tensor) -> Tensor:
    """x [..., D] with a last coordinate of one, [..., D + 1]."""
    return F.pad(x, (0, 1), value=1.0)
