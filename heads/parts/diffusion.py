"""Diffusion of vectors under a condition, as AV-DIFF has it (Denoising Diffusion Probabilistic Models, Ho et al. 2020):
a plain network of the vector, the step's number and the condition finds the noise."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FIRST, LAST = 1e-4, 0.02
"""The variances of the first and the last step's noise."""


class Diffusion(nn.Module):
    """A model of vectors [D] given conditions [E], in a number of steps.

    The network has ``layers`` hidden layers, the first of ``hidden`` entries and each further one of half as many.
    """

    beta: Tensor

    def __init__(self, dim: int, condition: int, steps: int, *, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [dim + 1 + condition, *(max(hidden >> place, 1) for place in range(layers)), dim]
        self.net = nn.Sequential(
            *(
                layer
                for before, after in pairwise(widths)
                for layer in (nn.LeakyReLU(), nn.Linear(before, after))
            )
        )
        self.register_buffer("beta", torch.linspace(FIRST, LAST, steps))

    def noise_of(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """The noise [M, D] in vectors [M, D] at steps [M]; the step's number is an input as it is."""
        noise: Tensor = self.net(torch.cat([x, step[:, None].to(x.dtype), condition], -1))
        return noise

    def loss(self, x: Tensor, condition: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """The mean squared error of the noise [M, D] that is found in vectors [M, D] after noise of a step [M]."""
        kept = (1 - self._beta(x)).cumprod(0)[step][:, None]
        noisy = kept.sqrt() * x + (1 - kept).sqrt() * noise
        return F.mse_loss(self.noise_of(noisy, step, condition), noise)

    def sample(self, condition: Tensor, noise: Tensor) -> Tensor:
        """Vectors [M, D] of conditions [M, E] from noise [M, steps + 1, D]: the start, and that of every step.

        As in the public code, noise is added at the last step, too.
        """
        beta = self._beta(noise)
        kept = (1 - beta).cumprod(0)
        x = noise[:, 0]
        for back, step in enumerate(reversed(range(len(beta)))):
            at = torch.full((len(x),), step, device=x.device)
            found = self.noise_of(x, at, condition)
            x = (x - beta[step] / (1 - kept[step]).sqrt() * found) / (1 - beta[step]).sqrt()
            x = x + beta[step].sqrt() * noise[:, 1 + back]
        return x

    def _beta(self, like: Tensor) -> Tensor:
        return self.beta.to(like)
