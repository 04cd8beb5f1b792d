"""SloshNet: Revisiting the Spatial and Temporal Modeling for Few-shot Action Recognition (Xing et al., AAAI 2023).

The temporal part: a short-term path gates each step's values by how neighbouring steps differ, a long-term path lets
all steps of a clip attend to one another, and a learned balance adds them up. TRX then classifies the clips. The
searched fusion of backbone stages needs the maps of all stages and is left to the encoder. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs
from ..parts.maps import channels_of
from ..parts.steps import unit_gain
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, NonNegative
from .recipes import ATTENTION
from .trx import CrossTransformers, TupleHead, TupleSettings


@dataclass(frozen=True)
class SloshNetSettings(TupleSettings):
    """SloshNet's settings: those of TRX, with the defaults of this method, and of the two paths."""

    side: Count = 1
    """The height and width of the features, where they are maps flattened as [C, side, side]; 1 for pooled ones."""
    groups: Count = 16
    """The channel groups that share the short-term path's convolutions (as many as divide C)."""
    heads: Count = 8
    """The attention heads of the long-term path (as many as divide C)."""
    hidden: CountOrNone = 256
    """The width of the long-term path's hidden layer; 0 for 4 C, as published."""
    released: bool = False
    """The released code's long-term path. It attends across clips and positions instead of time, then reads memory with
    time and channels exchanged, so that a clip's features depend on which others share its side of the episode:
    predictions are then transductive, and tied to the order of clips."""
    start: bool = True
    """Both paths begin so that the untrained head is TRX on the features, with TRX's own calm beginning; false: at
    random."""
    sharpness: NonNegative = 0.4
    """Where the gain of the keys' normalisation begins, where the head has a calm beginning (see ``start``)."""
    cardinalities: tuple[Count, ...] = (2,)
    """The lengths of the tuples; logits are averaged over them."""
    width: Count = 256
    """The width of keys and values (published: 1152)."""
    memory: Count = 256
    """MiB that the tuple pairs of one pass may take; above it queries are scored in parts."""


class SloshNet(TupleHead[SloshNetSettings]):
    Settings = SloshNetSettings
    recipe = replace(ATTENTION, every_core=True)

    def __init__(self, inputs: Inputs, settings: SloshNetSettings) -> None:
        super().__init__(inputs, settings)
        dim = channels_of(inputs.one()[2], settings.side)
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.short = ShortTerm(dim, settings.groups, start=settings.start)
        self.long = LongTerm(dim, settings)
        self.balance = nn.Parameter(torch.zeros(2))
        self.tuples = CrossTransformers(dim, settings)
        if settings.start:
            self.tuples.begin(settings.sharpness, orthogonal=True)

    def seen(self, clips: Stream) -> Stream:
        """Both paths over clips [..., T, C * side^2]: features [..., T, C]."""
        side, valid = self.settings.side, clips.mask()
        maps = self.levelled(clips).x.unflatten(-1, (-1, side, side))
        fused = self.fused(self.short(maps, valid), self.long(maps, valid), self.balance.softmax(0))
        return Stream(fused * valid[..., None].to(fused.dtype), clips.present, clips.length)

    def fused(self, short: Tensor, long: Tensor, gamma: Tensor) -> Tensor:
        """2 gamma_1 short + 2 gamma_0 long, averaged over positions: maps [..., T, C, H, W] -> [..., T, C]."""
        return (2 * gamma[1] * short + 2 * gamma[0] * long).mean((-1, -2))

    def shortcuts(self) -> Iterable[Shortcut]:
        """None for the released long-term path, in which a clip's features depend on the other clips."""
        return () if self.settings.released else super().shortcuts()


class ShortTerm(nn.Module):
    """-gate * v with gate_t = sigmoid(W2 gelu(W1 (conv k_{t+1} - conv q_t))); the difference is 0 at a clip's end.

    q, k, v are linear in the channels. Convolutions are 3 x 3 a channel, the same for each of ``groups`` groups.
    """

    def __init__(self, dim: int, groups: int, *, start: bool) -> None:
        super().__init__()
        self.groups = math.gcd(dim, groups)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.query, self.key = (nn.Parameter(torch.empty(dim // self.groups, 1, 3, 3)) for _ in range(2))
        self.first, self.second = (nn.Linear(dim, dim, bias=False) for _ in range(2))
        for kernel in (self.query, self.key):
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))
        if start:
            with torch.no_grad():
                self.qkv.weight[2 * dim :].zero_()

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Maps [..., T, C, H, W] of maps of that shape, of which the steps valid, bool [..., T], count."""
        q, k, v = self.qkv(maps.movedim(-3, -1)).movedim(-1, -3).chunk(3, -3)
        q, k = self._smooth(q, self.query), self._smooth(k, self.key)
        change = F.pad(k[..., 1:, :, :, :] - q[..., :-1, :, :, :], (0, 0, 0, 0, 0, 0, 0, 1))
        onward = F.pad(valid[..., 1:], (0, 1))[..., None, None, None]
        change = (change * onward.to(change.dtype)).movedim(-3, -1)
        gate = torch.sigmoid(self.second(F.gelu(self.first(change)))).movedim(-1, -3)
        return -gate * v

    def _smooth(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The convolution of maps x [..., T, C, H, W] with one kernel for each of the groups."""
        split = x.unflatten(-3, (self.groups, -1))
        flat = F.conv2d(split.flatten(0, -4), kernel, padding=1, groups=len(kernel))
        return flat.view_as(x)


class LongTerm(nn.Module):
    """One transformer block over a clip's steps at each position: norm, attention, norm, two QuickGELU layers."""

    def __init__(self, dim: int, settings: SloshNetSettings) -> None:
        super().__init__()
        self.heads, self.released = math.gcd(dim, settings.heads), settings.released
        hidden = settings.hidden or 4 * dim
        self.before, self.between = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        if settings.start:
            for layer in (self.out, self.narrow):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """Maps [..., T, C, H, W] of maps of that shape, of which the steps valid, bool [..., T], count."""
        return self._across_clips(maps) if self.released else self._over_time(maps, valid)

    def _over_time(self, maps: Tensor, valid: Tensor) -> Tensor:
        rows = maps.movedim((-2, -1), (-4, -3))  # [..., H, W, T, C]
        # A clip without a single step attends to its zeros: finite, and masked by the caller.
        allowed = (valid | ~valid.any(-1, keepdim=True))[..., None, None, None, None, :]
        return self._block(rows, allowed).movedim((-4, -3), (-2, -1))

    def _across_clips(self, maps: Tensor) -> Tensor:
        """The released path over the clips of each task, maps [B, ..., T, C, H, W]."""
        steps, dim, high, wide = maps.shape[-4:]
        tasks = maps.flatten(1, -5)
        rows = tasks.movedim((-2, -1), (2, 3)).flatten(1, 3)  # [B, V * H * W, T, C]
        mixed = self._block(rows.transpose(1, 2), None).transpose(1, 2)  # attention over clips and positions
        # Time and channels are exchanged, as released.
        scrambled = mixed.reshape(*tasks.shape[:2], high, wide, dim, steps)
        return scrambled.movedim((2, 3), (-2, -1)).transpose(2, 3).reshape(maps.shape)

    def _block(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.out(self._attend(self.before(x), allowed))
        hidden = self.widen(self.between(x))
        return x + self.narrow(hidden * torch.sigmoid(1.702 * hidden))

    def _attend(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for t in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v, allowed).transpose(-2, -3).flatten(-2)
