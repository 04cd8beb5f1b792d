"""Cross-modal adaptation: Multimodality Helps Unimodality (Lin et al., CVPR 2023).

The words of a class are one more sample of it: a linear classifier that starts at the words is trained on supports and
words alike, half the loss each. An adapter may go before it, and WiSE-FT may draw it back to the words. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..decided import Decided
from ..head import Inputs
from ..parts.descent import Descent
from ..settings import Count, NonNegative, Positive, Share
from .word_head import Samples, WordHead, WordSettings, WordTask

SEED = 20_230_601  # The adapter's first weights are drawn once and are the same for every task.


@dataclass(frozen=True)
class CrossModalSettings(WordSettings):
    """The settings of cross-modal adaptation."""

    classifier: Literal["linear", "adapter"] = "linear"
    """A linear classifier, or an adapter of two layers with a residual before it."""
    steps: Count = 100
    """Passes over all supports and words; the released code makes up to 12,800 of small batches and keeps the best on
    labelled validation clips."""
    rate: Positive = 1e-3
    """The first learning rate of AdamW, as published, falling to zero along half a cosine."""
    decay: NonNegative = 0.01
    """The weight decay of AdamW, as published."""
    words_share: Share = 0.5
    """The share of the loss that words have, as published."""
    wise: Share = 0.0
    """The share of the words in the classifier after training (WiSE-FT; 0.5 as published there); 0: none."""
    residual: Share = 0.2
    """The share of the adapter's output in what it gives, as published."""


class Network:
    """A linear classifier of B tasks, with or without an adapter before it, and its gradients.

    weights: "head" [B, N, D] and, with an adapter, "down" [B, H, D] and "up" [B, D, H].
    """

    def __init__(self, scale: float, residual: float) -> None:
        self.scale, self.residual = scale, residual

    def adapted(self, x: Tensor, weights: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What the classifier sees of x [B, M, D], and the adapter's layers [B, M, H] and [B, M, D]."""
        inner = F.relu(x @ weights["down"].transpose(1, 2))
        outer = F.relu(inner @ weights["up"].transpose(1, 2))
        return self.residual * outer + (1 - self.residual) * x, inner, outer

    def logits(self, x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        """The logits [B, M, N] of x [B, M, D]."""
        seen = self.adapted(x, weights)[0] if "down" in weights else x
        return self.scale * seen @ weights["head"].transpose(1, 2)

    def gradients(self, samples: Samples, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The gradient of every weight below the samples' cross-entropy."""
        residual = self.scale * samples.residual(self.logits(samples.x, weights)).transpose(1, 2)
        if "down" not in weights:
            return {"head": residual @ samples.x}
        seen, inner, outer = self.adapted(samples.x, weights)
        by_outer = self.residual * (residual.transpose(1, 2) @ weights["head"]) * (outer > 0)
        by_inner = (by_outer @ weights["up"]) * (inner > 0)
        return {
            "head": residual @ seen,
            "up": by_outer.transpose(1, 2) @ inner,
            "down": by_inner.transpose(1, 2) @ samples.x,
        }

    def descend(
        self, samples: Samples, weights: Mapping[str, Tensor], *, rates: list[float], decay: float
    ) -> Iterator[dict[str, Tensor]]:
        """The weights after each step of AdamW with these learning rates."""
        state = dict(weights)
        optimisers = {name: Descent("adamw", 0.0, decay=decay) for name in state}
        for rate in rates:
            slopes = self.gradients(samples, state)
            for name, optimiser in optimisers.items():
                optimiser.rate = rate
                state[name] = optimiser.step(state[name], slopes[name])
            yield dict(state)


def drawn_back(weights: Mapping[str, Tensor], words: Tensor, share: float) -> dict[str, Tensor]:
    """The weights with the classifier drawn to words [B, N, D] by this share, as WiSE-FT does."""
    return {**weights, "head": (1 - share) * weights["head"] + share * words}


def samples_of(task: WordTask, words: Tensor, words_share: float) -> Samples:
    """Supports and words [B, N, D] of length one as samples; without supports, words alone."""
    own = task.samples()
    ways = words.shape[1]
    seen = task.class_present.any(1)[:, None].to(words.dtype)
    of_words = (words_share * seen + 1 - seen) / ways
    return Samples(
        torch.cat([own.x, words], 1),
        torch.cat([own.hot, torch.eye(ways, dtype=words.dtype, device=words.device)]),
        torch.cat([(1 - words_share) * own.share, of_words.expand(-1, ways)], 1),
    )


class CrossModal(WordHead[CrossModalSettings]):
    Settings = CrossModalSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "rate, decay and the pass that is kept": Decided(
            "none", "labelled validation clips of the tested classes"
        ),
    }
    down: Tensor
    up: Tensor

    def __init__(self, inputs: Inputs, settings: CrossModalSettings) -> None:
        super().__init__(inputs, settings)
        if settings.classifier == "adapter":
            dim = inputs.one()[2]
            hidden, chance = max(dim // 4, 1), torch.Generator().manual_seed(SEED)
            for name, shape in (("down", (hidden, dim)), ("up", (dim, hidden))):
                uniform = 2 * torch.rand(shape, generator=chance) - 1
                self.register_buffer(name, uniform / math.sqrt(shape[1]))

    @torch.no_grad()
    def decide(self, task: WordTask) -> Tensor:
        """Logits [B, Q, N] after training."""
        own, words = self.settings, F.normalize(task.text, dim=-1)
        weights = {"head": words}
        if own.classifier == "adapter":
            for name, first in (("down", self.down), ("up", self.up)):
                weights[name] = first.to(words).expand(len(words), -1, -1)
        network = Network(task.scale, own.residual)
        rates = [own.rate * (1 + math.cos(math.pi * step / own.steps)) / 2 for step in range(own.steps)]
        samples = samples_of(task, words, own.words_share)
        for after in network.descend(samples, weights, rates=rates, decay=own.decay):
            weights = after
        return network.logits(task.query, drawn_back(weights, words, own.wise))
