"""Gradient descent inside episodes, all episodes at once, with gradients written out instead of traced.

A classifier of an episode is N weight vectors w [B, N, D] over samples x [B, M, D]. The caller gives gradients with
respect to logits [B, M, N], zero for absent samples; these functions carry them to the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

NEVER = -1e4  # the logit of a class without support


class Descent:
    """The state of one optimiser over batched weights: "sgd" (with momentum, dampening, decay), "adam" or "adamw".

    Its updates are those of torch.optim's classes of these names (Kingma and Ba, ICLR 2015, for Adam; Loshchilov and
    Hutter, ICLR 2019, for AdamW). ``rate`` may be changed between steps, and may be a tensor that differs by episode.
    """

    def __init__(
        self,
        kind: Literal["sgd", "adam", "adamw"],
        rate: float | Tensor,
        *,
        momentum: float = 0.0,
        dampening: float = 0.0,
        decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
    ) -> None:
        self.kind, self.rate, self.decay, self.betas, self.epsilon = kind, rate, decay, betas, epsilon
        self.momentum, self.dampening = momentum, dampening
        self.count = 0
        self.first: Tensor | None = None
        self.second: Tensor | None = None

    def step(self, w: Tensor, gradient: Tensor) -> Tensor:
        """The weights after one step; ``w`` itself is left alone."""
        self.count += 1
        if self.decay and self.kind == "adamw":
            w = w - self.rate * self.decay * w
        elif self.decay:
            gradient = gradient + self.decay * w
        return w + (self._sgd(gradient) if self.kind == "sgd" else self._adam(gradient))

    def _sgd(self, gradient: Tensor) -> Tensor:
        if self.first is None or not self.momentum:
            self.first = gradient.clone()
        else:
            self.first.mul_(self.momentum).add_(gradient, alpha=1 - self.dampening)
        return -self.rate * self.first

    def _adam(self, gradient: Tensor) -> Tensor:
        one, two = self.betas
        if self.first is None or self.second is None:
            self.first, self.second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self.first.lerp_(gradient, 1 - one)
        self.second.mul_(two).addcmul_(gradient, gradient, value=1 - two)
        size = self.rate / (1 - one**self.count)
        return -size * self.first / ((self.second / (1 - two**self.count)).sqrt_().add_(self.epsilon))


def cosine_logits(x: Tensor, w: Tensor, scale: float) -> Tensor:
    """scale * cos(x, w), [B, M, N], of samples x [B, M, D] of length one and weights w [B, N, D]."""
    return scale * (x @ F.normalize(w, dim=-1).transpose(1, 2))


def cosine_gradient(x: Tensor, w: Tensor, scale: float, gradient: Tensor) -> Tensor:
    """The gradient [B, N, D] of the weights below ``cosine_logits``, from that of the logits [B, M, N]."""
    length = w.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    unit = w / length
    pull = scale * (gradient.transpose(1, 2) @ x)
    return (pull - unit * (unit * pull).sum(-1, keepdim=True)) / length


def euclidean_logits(x: Tensor, w: Tensor, scale: float) -> Tensor:
    """-scale/2 |x - w|^2, [B, M, N], without its |x|^2, which is the same for every class."""
    return scale * (x @ w.transpose(1, 2) - 0.5 * w.square().sum(-1)[:, None, :])


def euclidean_gradient(x: Tensor, w: Tensor, scale: float, gradient: Tensor) -> Tensor:
    """The gradient [B, N, D] of the weights below ``euclidean_logits``, from that of the logits [B, M, N]."""
    return scale * (gradient.transpose(1, 2) @ x - gradient.sum(1)[..., None] * w)


def span_coordinates(support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates [B, M, R] and [B, Q, R] of supports [B, M, D] and queries [B, Q, D] in the span of the supports.

    Inner products with any vector of that span stay what they were, and gradient descent from a start in the span
    never leaves it; so R = min(M, D) coordinates serve in place of D. Not for Adam, which depends on the axes.
    """
    if support.shape[1] >= support.shape[2]:
        return support, query
    basis = torch.linalg.qr(support.transpose(1, 2)).Q
    return support @ basis, query @ basis


def fitted(
    x: Tensor,
    w: Tensor,
    *,
    gradient: Callable[[Tensor], Tensor],
    class_present: Tensor,
    distance: Literal["euclidean", "cosine"],
    temperature: float,
    rate: float,
    iterations: int,
) -> Tensor:
    """The weights [B, N, D] that Adam reaches from ``w`` over samples x [B, M, D].

    gradient: the objective's gradient [B, M, N] at logits [B, M, N]; class_present: which classes have a support,
    bool [B, N], the logits of the others being ``NEVER``; temperature: the factor of the logits.
    """
    cosine = distance == "cosine"
    x = F.normalize(x, dim=-1) if cosine else x
    logits_of = cosine_logits if cosine else euclidean_logits
    gradient_of = cosine_gradient if cosine else euclidean_gradient
    class_absent = None if bool(class_present.all()) else ~class_present[:, None, :]
    optimiser = Descent("adam", rate)
    for _ in range(iterations):
        logits = logits_of(x, w, temperature)
        if class_absent is not None:
            logits = logits.masked_fill(class_absent, NEVER)
        w = optimiser.step(w, gradient_of(x, w, temperature, gradient(logits)))
    return w
