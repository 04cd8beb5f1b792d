"""Fine-tuning: A Closer Look at Few-shot Classification (Chen et al., ICLR 2019), Baseline and Baseline++.

A classifier over frozen features is fitted to the supports by gradient descent: a linear one (Baseline), or one of
cosine similarities (Baseline++). All episodes descend at once, in the coordinates of their supports' span. Inductive.
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
class FineTuneSettings(Settings):
    """classifier: "cosine" (Baseline++) or "linear" (Baseline). scale: of the cosine in the loss.

    start: "prototypes", or "zero" (linear only; the loss is convex). The paper starts at random, which would make a
    result depend on more than the episode.
    optimiser: "sgd" with momentum, dampening and decay as published (rate .01, 100 epochs of mini-batches of four;
    here ``steps`` passes over all supports), or "adam".
    transform: of the features, see SimpleShot.
    """

    classifier: str = "cosine"
    scale: float = 10.0
    start: str = "prototypes"
    steps: int = 100
    optimiser: str = "sgd"
    rate: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    decay: float = 0.001
    transform: str = "l2n"


class FineTune(CentredHead):
    settings_class = FineTuneSettings

    def __init__(self, inputs: Inputs, settings: FineTuneSettings | None = None) -> None:
        super().__init__(inputs, settings)
        given = self.settings
        for key, known in (
            ("classifier", ("cosine", "linear")),
            ("start", ("prototypes", "zero")),
            ("optimiser", ("sgd", "adam")),
        ):
            if getattr(given, key) not in known:
                raise UsageError(f"{key}={getattr(given, key)!r} is not known; use {' or '.join(known)}.")
        if given.classifier == "cosine" and given.start == "zero":
            raise UsageError("A cosine classifier has no direction at zero; use start=prototypes.")

    @torch.no_grad()
    def of_task(self, task: Task) -> Tensor:
        return neutral(self.fitted_logits(task), task.asked, task.known)

    def fitted_logits(self, task: Task) -> Tensor:
        """Logits [B, Q, N] of the queries at the fitted weights."""
        given = self.settings
        support, query = task.support.flatten(1, 2), task.query
        if given.classifier == "cosine":
            support, query = F.normalize(support, dim=-1), F.normalize(query, dim=-1)
        start = task.means() if given.start == "prototypes" else torch.zeros_like(task.means())
        if given.optimiser == "sgd":
            # means lie in the span of the supports (scaled or not), so they can be expressed there
            places = torch.cat([start, query], 1)
            support, places = descent.span_coordinates(support, places)
            start, query = places.split([start.shape[1], query.shape[1]], 1)
        return (
            self._cosine(task, support, query, start)
            if given.classifier == "cosine"
            else self._linear(task, support, query, start)
        )

    def _cosine(self, task: Task, support: Tensor, query: Tensor, w: Tensor) -> Tensor:
        optimiser, residual = self._descent(), _Residual(task)
        for _ in range(self.settings.steps):
            gradient = residual(descent.cosine_logits(support, w, self.settings.scale))
            w = optimiser.step(w, descent.cosine_gradient(support, w, self.settings.scale, gradient))
        return descent.cosine_logits(query, w, self.settings.scale)

    def _linear(self, task: Task, support: Tensor, query: Tensor, w: Tensor) -> Tensor:
        """Weights and bias as one: every sample has a last coordinate of one."""
        support, query = _with_one(support), _with_one(query)
        w = F.pad(w, (0, 1))
        optimiser, residual = self._descent(), _Residual(task)
        for _ in range(self.settings.steps):
            gradient = residual(support @ w.transpose(1, 2))
            w = optimiser.step(w, gradient.transpose(1, 2) @ support)
        return query @ w.transpose(1, 2)

    def _descent(self) -> descent.Descent:
        given = self.settings
        return descent.Descent(given.optimiser, given.rate, given.momentum, given.dampening, given.decay)


class _Residual:
    """Gradient of the mean cross-entropy of the supports with respect to their logits: (softmax - label) / count."""

    def __init__(self, task: Task) -> None:
        ways, shots = task.shown.shape[1:]
        dtype = task.support.dtype
        shown = task.shown.flatten(1, 2)
        self.hot = torch.eye(ways, dtype=dtype, device=shown.device).repeat_interleave(shots, 0)
        self.share = (shown / shown.sum(1, keepdim=True).clamp(min=1))[..., None].to(dtype)
        self.unknown = None if bool(task.known.all()) else ~task.known[:, None, :]

    def __call__(self, logits: Tensor) -> Tensor:
        if self.unknown is not None:
            logits = logits.masked_fill(self.unknown, _NEVER)
        return (torch.softmax(logits, -1) - self.hot) * self.share


def _with_one(x: Tensor) -> Tensor:
    return F.pad(x, (0, 1), value=1.0)
