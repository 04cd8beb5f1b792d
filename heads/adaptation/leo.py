"""LEO: Meta-Learning with Latent Embedding Optimization (Rusu et al., ICLR 2019).

The supports of a class, and how they relate to those of the others, give a code of few numbers; the code is decoded
into the class's weights. A few gradient steps on the supports move the code, a few more move the weights themselves,
both at learned rates. Made for frozen features. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import cross_entropy
from ..parts.tensors import single
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe, Settings

SMALLEST = 1e-10  # the floor of all standard deviations
Draw = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LEOSettings(Settings):
    """LEO's settings."""

    latent: Count = 64
    """The numbers in a code."""
    inner_steps: CountOrNone = 5
    """Gradient steps in code space."""
    inner_rate: NonNegative = 1.0
    """The value at which the learned rates in code space begin."""
    finetuning_steps: CountOrNone = 5
    """Gradient steps in weight space."""
    finetuning_rate: NonNegative = 1.0
    """The value at which the learned rates in weight space begin; published: 1e-3, but for the published start."""
    kl: NonNegative = 1e-3
    """Beta, the weight of the codes' KL divergence from the unit normal."""
    penalty: NonNegative = 1e-9
    """Gamma, the weight of the squared distance between adapted and first codes."""
    l2: NonNegative = 1e-8
    """Lambda 1, the weight of the squared length of all matrices."""
    orthogonality: NonNegative = 1e-3
    """Lambda 2, the weight that keeps the decoder's rows orthogonal."""
    dropout: Rate = 0.5
    """The dropout of the inputs of the encoder and of the linear predictions, in training."""
    principal: bool = True
    """Start as a training-free rule: codes are principal components of the base features, a class's is the mean of its
    supports', and decoding is the way back; false: at random, as published."""
    logit_scale: NonNegative = 0.05
    """The size of the first logits of the training-free start."""


@dataclass
class Adapted:
    """What adaptation gives."""

    before: Tensor
    """Class weights [B, N, K, D] before fine-tuning."""
    after: Tensor
    """Class weights [B, N, K, D] after fine-tuning."""
    kl: Tensor
    """The regulariser that ``kl`` weighs."""
    penalty: Tensor
    """The regulariser that ``penalty`` weighs."""


class LEO(Head[LEOSettings]):
    Settings = LEOSettings
    recipe = Recipe(
        steps=300,
        tasks=8,
        query=5,
        rate=1e-4,
        clip_value=0.1,
        clip_norm=0.1,
        evaluate_every=50,
        evaluate_episodes=200,
        patience=3,
    )

    def __init__(self, inputs: Inputs, settings: LEOSettings) -> None:
        super().__init__(inputs, settings)
        _, _, dim = inputs.one()
        size = settings.latent
        self.encoder = nn.Linear(dim, size, bias=False)
        self.relation = nn.ModuleList(nn.Linear(2 * size, 2 * size, bias=False) for _ in range(3))
        self.decoder = nn.Linear(size, 2 * dim, bias=False)
        self.inner_rate = nn.Parameter(torch.full((size,), settings.inner_rate))
        self.finetuning_rate = nn.Parameter(torch.full((dim,), settings.finetuning_rate))
        if settings.principal:
            self._begin_at(nn.init.orthogonal_(torch.empty(min(size, dim), dim)))

    def fit_base(self, base: FeatureBank) -> None:
        """With ``principal``: starts the codes at the principal components of the base features."""
        if not self.settings.principal:
            return
        table = next(iter(base.tables.values())).pooled()
        x = table.x[table.present, 0].float()
        _, _, axes = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        self._begin_at(axes[: min(self.settings.latent, len(axes))].to(self.encoder.weight))

    @torch.no_grad()
    def _begin_at(self, axes: Tensor) -> None:
        """Makes codes components along ``axes`` [A, D], A <= L, and decoding the way back.

        A class's code is the mean of its supports'.
        """
        size, dim = self.settings.latent, axes.shape[1]
        used = len(axes)
        grow = dim**0.5  # features have length one: this brings codes near the unit normal that KL asks for
        self.encoder.weight.zero_()[:used] = grow * axes
        first, second, third = (weight.zero_() for weight in self._relation_weights())
        unit = torch.eye(size, device=axes.device, dtype=axes.dtype)
        # A ReLU net that passes a code through: its positive and its negative part, side by side.
        first[:size, :size], first[size:, :size] = unit, -unit
        second.copy_(torch.eye(2 * size))
        third[:size, :size], third[:size, size:] = unit, -unit
        third[size:] = 0.1 / (0.8 * size)  # standard deviations of about a tenth
        self.decoder.weight.zero_()[:dim, :used] = self.settings.logit_scale / grow * axes.T

    def _relation_weights(self) -> list[Tensor]:
        return [layer.weight for layer in self.relation if isinstance(layer, nn.Linear)]

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        return self._logits(episodes, self._adapted(episodes))

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy of the queries, KL and encoder penalty, and the regularisers of the weights."""
        adapted = self._adapted(episodes)
        return self.objective(cross_entropy(self._logits(episodes, adapted), episodes.query_label), adapted)

    def objective(self, entropy: Tensor, adapted: Adapted) -> Losses:
        """The total of a mean cross-entropy and every regulariser."""
        settings = self.settings
        matrices = [self.encoder.weight, self.decoder.weight, *self._relation_weights()]
        l2 = torch.stack([weight.square().sum() for weight in matrices]).sum() / 2
        # A row of the published [L, 2D] matrix is a column here.
        rows = F.normalize(self.decoder.weight, dim=0)
        unit = torch.eye(rows.shape[1], device=rows.device, dtype=rows.dtype)
        orthogonality = (rows.T @ rows - unit).square().mean()
        total = entropy + settings.kl * adapted.kl + settings.penalty * adapted.penalty
        total = total + settings.l2 * l2 + settings.orthogonality * orthogonality
        return Losses(total, {"ce": entropy, "kl": adapted.kl, "penalty": adapted.penalty})

    def _logits(self, episodes: Episodes, adapted: Adapted) -> Tensor:
        support, query = single(episodes)
        x = query.pooled().to(adapted.after.dtype)
        logits = self._predict(x, adapted.after, _shares(support.present, x.dtype))
        return neutral(logits, query.present, support.present.any(2))

    def _adapted(self, episodes: Episodes) -> Adapted:
        support, _ = single(episodes)
        x = support.pooled().to(self.encoder.weight.dtype)
        return self.adapt(x, support.present, torch.randn_like if self.training else None)

    def adapt(self, x: Tensor, present: Tensor, draw: Draw | None) -> Adapted:
        """Class weights for supports x [B, N, K, D]; present: bool [B, N, K].

        draw: makes standard normal noise of a tensor's shape; None for the means (evaluation).
        """
        settings = self.settings
        mean, spread = self._encode(x, present)
        start, kl = (mean, mean.new_zeros(())) if draw is None else _sample(mean, spread, draw)
        code = start
        weights, noise = self._decode(code, self._noise(x, draw))
        for _ in range(settings.inner_steps):
            slope = grad(lambda z, e: self._support_loss(x, present, self._decode(z, e)[0]))(code, noise)
            code = code - self.inner_rate * slope
            weights, noise = self._decode(code, self._noise(x, draw))
        penalty = kl.new_zeros(()) if draw is None else (code.detach() - start).square().mean()
        return Adapted(weights, self._finetune(x, present, weights), kl, penalty)

    def _finetune(self, x: Tensor, present: Tensor, weights: Tensor) -> Tensor:
        """Class weights [B, N, K, D] after the gradient steps in weight space."""
        slope = grad(lambda w: self._support_loss(x, present, w))
        for _ in range(self.settings.finetuning_steps):
            weights = weights - self.finetuning_rate * slope(weights)
        return weights

    def _encode(self, x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the spread of the codes, [B, N, K, L] each: K equal copies of a class's mean over its pairs."""
        ways, shots = present.shape[1:]
        code = self.encoder(F.dropout(x, self.settings.dropout, self.training)).flatten(1, 2)
        count = ways * shots
        pair = torch.cat(
            [code[:, :, None].expand(-1, -1, count, -1), code[:, None].expand(-1, count, -1, -1)], -1
        )
        for layer in self.relation[:-1]:
            pair = F.relu(layer(pair))
        weight = present.flatten(1, 2).to(x.dtype)
        each = _mean(self.relation[-1](pair), weight[:, None, :, None], 2).unflatten(1, (ways, shots))
        whole = _mean(each, weight.unflatten(1, (ways, shots))[..., None], 2)
        mean, spread = whole[:, :, None].expand(-1, -1, shots, -1).chunk(2, -1)
        return mean, spread

    def _decode(self, code: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Class weights [B, N, K, D] of codes, and the noise that went into them."""
        mean, spread = self.decoder(code).chunk(2, -1)
        if noise is None:
            return mean, None
        ways, dim = code.shape[1], mean.shape[-1]
        offset = 1 - (2 / (ways + dim)) ** 0.5
        return mean + (spread.exp() - offset).clamp(min=SMALLEST) * noise, noise

    def _noise(self, x: Tensor, draw: Draw | None) -> Tensor | None:
        return None if draw is None else draw(x)

    def _predict(self, x: Tensor, weights: Tensor, share: Tensor) -> Tensor:
        """Logits [B, M, N] of x [B, M, D]: the mean over the K copies of each class's weights (``share`` [B, N, K])."""
        x = F.dropout(x, self.settings.dropout, self.training)
        return x @ torch.einsum("bnkd,bnk->bdn", weights, share)

    def _support_loss(self, x: Tensor, present: Tensor, weights: Tensor) -> Tensor:
        """The sum, not the mean, of the cross-entropy over present supports and tasks."""
        ways, shots = present.shape[1:]
        logits = self._predict(x.flatten(1, 2), weights, _shares(present, x.dtype))
        label = torch.arange(ways, device=x.device).repeat_interleave(shots).expand(len(x), -1)
        each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
        return (each * present.flatten().to(each.dtype)).sum()


def _shares(present: Tensor, dtype: torch.dtype) -> Tensor:
    """Each copy's share [B, N, K] in its class: even over those of present supports, over all where there is none."""
    counted = torch.where(present.any(2, keepdim=True), present, True).to(dtype)
    return counted / counted.sum(2, keepdim=True)


def _mean(x: Tensor, weight: Tensor, axis: int) -> Tensor:
    """The mean of x over one axis with weights 0 and 1; zero where all are 0."""
    return (x * weight).sum(axis) / weight.sum(axis).clamp(min=1)


def _sample(mean: Tensor, spread: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
    """A code from N(mean, sigma), and the mean over entries of log N(code; mean, sigma) - log N(code; 0, 1)."""
    sigma = (spread.exp() - 1).clamp(min=SMALLEST)
    code = mean + sigma * draw(mean)
    posterior = -((code - mean) / sigma).square() / 2 - sigma.log()
    return code, (posterior + code.square() / 2).mean()
