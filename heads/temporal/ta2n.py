"""TA2N: Two-Stage Action Alignment Network for Few-Shot Action Recognition (Li et al., AAAI 2022).

A small network shifts and stretches each clip in time; then, for each pair of clips, the query's steps are rebuilt in
the order of the support's, and (on feature maps) a predicted offset moves both clips' windows onto the actor. Clips are
compared step by step by cosine. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.steps import scaled, unit_gain
from ..parts.tensors import single
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, Positive, Rate, Recipe, Settings
from .ta2n_maps import MapLocaliser, SpatialCoordination


@dataclass(frozen=True)
class TA2NSettings(Settings):
    """TA2N's settings."""

    map: CountOrNone = 0
    """The side H of feature maps (4 or more): a step then holds C * H * H values, channel by channel; 0 for pooled
    features."""
    dropout: Rate = 0.5
    """The dropout of the features."""
    rescale: bool = True
    """Multiply unit features by sqrt(C), so that attention can tell them apart."""
    distance_norm: bool = False
    """LayerNorm over the ways of the logits (off in the paper); it ties weights to class positions."""
    scale: Positive = 1.0
    """The factor of the logits."""
    start: bool = True
    """The 1 x 1 maps begin as the identity, so that the untrained head aligns by the features themselves; false: at
    random."""


class TA2N(Head[TA2NSettings]):
    Settings = TA2NSettings
    recipe = Recipe(steps=300, query=5, rate=2e-4, evaluate_episodes=200, patience=4, mix=0.5)

    def __init__(self, inputs: Inputs, settings: TA2NSettings) -> None:
        super().__init__(inputs, settings)
        side, (_, steps, held) = settings.map, inputs.one()
        if side and (side < 4 or held % side**2):
            raise UsageError(
                f"map={side} does not fit {held} features a step; use 0 for pooled features, or the side (4 or more) "
                "of C x map x map values."
            )
        if side and steps < 4:
            raise UsageError(
                f"TA2N on maps pools time twice and needs 4 steps or more; this stream has {steps}."
            )
        self.pixels = side**2 or 1
        dim = held // self.pixels
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.localiser: nn.Module = MapLocaliser(dim, side) if side else SequenceLocaliser(dim)
        self.theta = Affine()
        self.fuse, self.coordinate = StepAttention(dim), StepAttention(dim)
        self.spatial = SpatialCoordination(dim, side) if side else None
        self.norm = nn.LayerNorm(inputs.way) if settings.distance_norm else None
        self.dropout = nn.Dropout(settings.dropout)
        if settings.start:
            self.fuse.begin_as_identity()
            self.coordinate.begin_as_identity()

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        if self.norm is not None and episodes.ways != self.inputs.way:
            raise UsageError(
                f"distance_norm is made for {self.inputs.way}-way tasks and got {episodes.ways}; turn it off."
            )
        logits = self.settings.scale * self.scores(*self.aligned(support, query))
        logits = logits if self.norm is None else self.norm(logits)
        return neutral(logits, query.present, support.present.any(2))

    def shortcuts(self) -> Iterable[Shortcut]:
        """With one shot each pair of clips is scored once, unless logits are normalised over the classes."""
        return (FromPairs(head=self),) if self.norm is None else ()

    def theta_of(self, clips: Stream) -> Tensor:
        """Stretch and shift (a, b) of each clip in time, [..., 2], both in (-1, 1)."""
        return self._theta(self._features(clips), clips)

    def _theta(self, x: Tensor, clips: Stream) -> Tensor:
        """Stretch and shift [..., 2] of clips whose features are x [..., T, C, pixels]."""
        theta: Tensor = self.theta(self.localiser(x, clips.mask()))
        return theta

    def _features(self, clips: Stream) -> Tensor:
        """Features [..., T, C, pixels] behind the dropout."""
        return self.dropout(scaled(clips, self.gain, self).x).unflatten(-1, (-1, self.pixels))

    def transformed(self, clips: Stream) -> Tensor:
        """First stage: every clip read at positions a u + b, u evenly in [-1, 1]: [..., T, C, pixels].

        Clips of any length come out with the same number of steps; outside a clip is zero.
        """
        x = self._features(clips)
        theta = self._theta(x, clips)
        even = torch.linspace(-1, 1, x.shape[-3], device=x.device, dtype=x.dtype)
        last = (clips.length.clamp(min=1) - 1).to(x.dtype)[..., None]
        place = (theta[..., :1] * even + theta[..., 1:] + 1) / 2 * last  # [..., T]
        source = torch.arange(x.shape[-3], device=x.device, dtype=x.dtype)
        weight = torch.relu(1 - (place[..., None] - source).abs())  # linear interpolation
        return (weight @ x.flatten(-2)).unflatten(-1, x.shape[-2:])

    def aligned(self, support: Stream, query: Stream) -> tuple[Tensor, Tensor]:
        """Second stage: supports and queries of every pair, [B, N, Q, T, C] each."""
        s, q = self.transformed(support), self.transformed(query)
        prototype, q = self.fused(s, support.present, q)
        s_mean, q_mean = prototype.mean(-1), q.mean(-1)
        weight = self.coordinate.weight(s_mean[:, :, None], q_mean[:, None]).softmax(-1)  # [B, N, Q, Ts, Tq]
        value = self.coordinate.value(q_mean)
        q_pair = q[:, None] + (weight @ value[:, None])[..., None]
        s_out = prototype + self.coordinate.value(s_mean)[..., None]
        s_pair = s_out[:, :, None].expand_as(q_pair)
        return (s_pair[..., 0], q_pair[..., 0]) if self.spatial is None else self.spatial(s_pair, q_pair)

    def fused(self, support: Tensor, present: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Class prototypes [B, N, T, C, pixels] and the queries [B, Q, T, C, pixels] that are compared with them.

        A prototype is the mean of the supports, each rebuilt on the time of the first that is present. With one shot
        supports and queries pass as they are.
        """
        if support.shape[2] == 1:
            return support[:, :, 0], query
        mean = support.mean(-1)
        first = present.int().argmax(2)[:, :, None, None, None].expand(-1, -1, 1, *mean.shape[-2:])
        reference = torch.gather(mean, 2, first)
        weight = self.fuse.weight(mean, reference).softmax(-2)  # over the shot's own time
        value = self.fuse.value(support.transpose(-1, -2)).transpose(-1, -2)
        rebuilt = (weight.transpose(-1, -2) @ value.flatten(-2)).unflatten(-1, value.shape[-2:])
        share = present.to(rebuilt.dtype)
        total = torch.einsum("bnktcp,bnk->bntcp", rebuilt, share)
        prototype = total / share.sum(2).clamp(min=1)[..., None, None, None]
        return prototype, self.fuse.value(query.transpose(-1, -2)).transpose(-1, -2)

    def scores(self, support: Tensor, query: Tensor) -> Tensor:
        """Minus the sum over time of one minus the cosine of [B, N, Q, T, C], as [B, Q, N]."""
        return (F.cosine_similarity(support, query, dim=-1) - 1).sum(-1).transpose(1, 2)


class SequenceLocaliser(nn.Module):
    """What the first stage sees of a pooled sequence: two convolutions along time, the maximum over valid steps.

    It stands in for the released network's two 3-d convolution blocks, whose spatial pooling needs maps.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, 64, 3, padding=1)
        self.second = nn.Conv1d(64, 128, 3, padding=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Features [..., 128] of clips x [..., T, C, 1], of which the steps ``mask``, bool [..., T], are valid."""
        flat = x[..., 0].flatten(0, -3).transpose(-1, -2)
        valid = mask.flatten(0, -2)[:, None].to(x.dtype)
        hidden = torch.relu(self.first(flat)) * valid
        hidden = torch.relu(self.second(hidden)) * valid
        return hidden.amax(-1).unflatten(0, x.shape[:-3])


class Affine(nn.Module):
    """(a, b) in (-1, 1) from what a localiser saw; it begins at (tanh 2, 0), nearly the identity in time."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(128, 32), nn.Linear(32, 2)
        nn.init.zeros_(self.out.weight)
        self.out.bias.data = torch.tensor([2.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        """Stretch and shift [..., 2] of features x [..., 128]."""
        return torch.tanh(self.out(torch.relu(self.hidden(x))))


class StepAttention(nn.Module):
    """Linear maps (1x1 convolutions) that compare the steps of two clips, and one that is passed on."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.key, self.query, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))

    def weight(self, keys: Tensor, queries: Tensor) -> Tensor:
        """Logits [..., Tk, Tq] of keys [..., Tk, C] and queries [..., Tq, C], scaled by 1 / sqrt(C)."""
        return self.key(keys) @ self.query(queries).transpose(-1, -2) / keys.shape[-1] ** 0.5

    def begin_as_identity(self) -> None:
        """Makes every map the identity until it is trained."""
        for layer in (self.key, self.query, self.value):
            nn.init.eye_(layer.weight)
