"""Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification (Zhang et al., ECCV 2022).

The supports are a cache: each is a key whose value is its label, and a query sums the labels of all keys by how near
they are. That is added to the classifier from class words. Tip-Adapter-F trains the keys on the supports. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..decided import Decided
from ..parts.descent import Descent
from ..settings import Count, NonNegative, Positive
from .word_head import BlendingHead, Samples, WordHead, WordSettings, WordTask

SEARCHED = "labelled validation clips of the tested classes"
EPSILON = 1e-4  # what the released training adds in AdamW
SEARCH_SCALE, SEARCH_STEPS = (7.0, 30.0), (10, 15)


@dataclass(frozen=True)
class TipAdapterSettings(WordSettings):
    """Tip-Adapter's settings."""

    beta: NonNegative | None = None
    """How sharply nearness falls with distance; none: the best on base classes."""
    alpha: NonNegative | None = None
    """The weight of the cache beside the words; none: the best on base classes."""


@dataclass(frozen=True)
class TipAdapterFSettings(TipAdapterSettings):
    """The settings of Tip-Adapter-F."""

    steps: Count = 20
    """Passes over all supports, as published; the learning rate falls to zero along half a cosine."""
    rate: Positive = 1e-3
    """The first learning rate of AdamW, as published."""
    decay: NonNegative = 0.01
    """The weight decay of AdamW, as published."""


def search_grid(
    scale: tuple[float, float] = SEARCH_SCALE, steps: tuple[int, int] = SEARCH_STEPS
) -> list[tuple[float, ...]]:
    """The pairs (beta, alpha) of the published search: equal steps from 0.1 towards ``scale``, beta outside."""
    betas, alphas = (
        [0.1 + i * (high - 0.1) / count for i in range(count)] for high, count in zip(scale, steps)
    )
    return [(beta, alpha) for beta in betas for alpha in alphas]


class TipAdapter(BlendingHead[TipAdapterSettings, Tensor]):
    Settings = TipAdapterSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        **dict.fromkeys(("beta", "alpha"), Decided("base", SEARCHED)),
    }
    names = ("beta", "alpha")
    start = (1.0, 1.0)

    def grid(self) -> list[tuple[float, ...]]:
        return search_grid()

    def evidence(self, task: WordTask) -> Tensor:
        """Cosines [B, Q, N*K] of queries and keys."""
        return task.query @ self.keys(task).transpose(1, 2)

    def keys(self, task: WordTask) -> Tensor:
        """The keys [B, N*K, D] of the cache: the supports."""
        return task.support.flatten(1, 2)

    def blended(self, task: WordTask, evidence: Tensor, blend: tuple[float, ...]) -> Tensor:
        return task.text_logits + cache_logits(task, evidence, blend)


class TipAdapterF(TipAdapter):
    """Tip-Adapter whose keys are trained on the supports of a task; beta and alpha are those of the untrained keys."""

    Settings = TipAdapterFSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **TipAdapter.decided,
        "keys": Decided("supports"),
        "pass that is kept": Decided("none", "the best one on the test split, in the released code"),
    }
    settings: TipAdapterFSettings

    def decide(self, task: WordTask) -> Tensor:
        beta, alpha = self.blend.tolist()
        keys = self.trained_keys(task, beta=beta, alpha=alpha)
        return self.blended(task, task.query @ keys.transpose(1, 2), (beta, alpha))

    @torch.no_grad()
    def trained_keys(self, task: WordTask, *, beta: float, alpha: float) -> Tensor:
        """The keys [B, N*K, D] after training with the supports as queries."""
        own, keys, samples = self.settings, self.keys(task), task.samples()
        optimiser = Descent("adamw", own.rate, decay=own.decay, epsilon=EPSILON)
        for step in range(own.steps):
            optimiser.rate = own.rate * (1 + math.cos(math.pi * step / own.steps)) / 2
            residual = samples.residual(self._logits(task, samples, keys, (beta, alpha)))
            keys = optimiser.step(keys, key_gradient(task, samples.x, keys, residual, (beta, alpha)))
        return keys

    def _logits(self, task: WordTask, samples: Samples, keys: Tensor, blend: tuple[float, ...]) -> Tensor:
        """The logits [B, M, N] of samples with these keys."""
        return self.blended(task._replace(query=samples.x), samples.x @ keys.transpose(1, 2), blend)


def cache_logits(task: WordTask, near: Tensor, blend: tuple[float, ...]) -> Tensor:
    """What the cache says, alpha exp(-beta (1 - near)) summed over the keys of a class, [B, Q, N].

    near: cosines [B, Q, N*K] of queries and keys; blend: beta and alpha.
    """
    beta, alpha = blend
    votes = torch.exp(-beta * (1 - near)) * task.support_present.flatten(1)[:, None].to(near.dtype)
    return alpha * votes.unflatten(-1, task.support.shape[1:3]).sum(-1)


def key_gradient(
    task: WordTask, x: Tensor, keys: Tensor, residual: Tensor, blend: tuple[float, ...]
) -> Tensor:
    """The gradient [B, N*K, D] of the keys, from that of the logits [B, M, N] of samples x [B, M, D]."""
    beta, alpha = blend
    votes = torch.exp(-beta * (1 - x @ keys.transpose(1, 2)))
    votes = votes * task.support_present.flatten(1)[:, None].to(x.dtype)
    by_vote = residual.repeat_interleave(task.support.shape[2], -1)
    return (alpha * beta * votes * by_vote).transpose(1, 2) @ x
