"""A gate that learns whether a clip is of a base class: the out-of-distribution detector of AV-OOD-GZSL (BMVC 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SPREAD = 0.02
"""The standard deviation at which the weights begin."""


class EntropyGate(nn.Module):
    """A classifier of C base classes whose entropy is low for clips of these and high for others.

    Features [M, D] pass two hidden layers with LeakyReLU of slope 0.2.
    """

    def __init__(self, dim: int, classes: int, hidden: tuple[int, int] = (512, 128)) -> None:
        super().__init__()
        first, second = hidden
        self.layers = nn.ModuleList(
            nn.Linear(a, b) for a, b in ((dim, first), (first, second), (second, classes))
        )
        for layer in self.layers:
            nn.init.normal_(layer.get_parameter("weight"), std=SPREAD)
            nn.init.zeros_(layer.get_parameter("bias"))

    def forward(self, x: Tensor) -> Tensor:
        """The logits [M, C] of features [M, D]."""
        first, second, last = self.layers
        logits: Tensor = last(F.leaky_relu(second(F.leaky_relu(first(x), 0.2)), 0.2))
        return logits

    def entropy(self, x: Tensor) -> Tensor:
        """The Shannon entropy of the posterior of features [M, D] in nats, [M]."""
        log_p = self(x).log_softmax(-1)
        entropy: Tensor = -(log_p.exp() * log_p).sum(-1)
        return entropy

    def losses(self, x: Tensor, label: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """The terms of features x [M, D] of base classes with labels [M], and of features of no base class.

        The first is the mean entropy plus the cross-entropy, the second minus the mean entropy; their sum is minimised.
        """
        return self.entropy(x).mean() + F.cross_entropy(self(x), label), -self.entropy(other).mean()


def between_classes(x: Tensor, label: Tensor) -> Tensor:
    """Features of no class: each of x [M, D] mixed with a random one of another class, where there is one."""
    differs = label[:, None] != label[None]
    drawn = torch.multinomial(differs.float() + 1e-9, 1)[:, 0]
    share = torch.empty(len(x), 1, device=x.device, dtype=x.dtype).uniform_(0.3, 0.7)
    return share * x + (1 - share) * x[drawn]
