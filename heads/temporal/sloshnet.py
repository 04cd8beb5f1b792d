"""SloshNet: Revisiting the Spatial and Temporal Modeling for Few-shot Action Recognition (Xing et al., AAAI 2023).

The temporal part: a short-term path gates each step's values by how neighbouring steps differ, a long-term path lets
all steps of a clip attend to one another, and a learned balance adds them up. TRX then classifies the clips. The
searched fusion of backbone stages needs the maps of all stages and is left to the encoder. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ...errors import UsageError
from ..head import Inputs
from ..settings import Recipe, Settings
from .trx import CrossTransformers, TupleHead, scaled


@dataclass(frozen=True)
class SloshNetSettings(Settings):
    """side: height and width of the features, where they are maps flattened as [C, side, side]; 1 for pooled ones.

    groups: channel groups that share the short-term path's convolutions (as many as divide C). heads: of the attention.
    released: the released code's long-term path. It attends across clips and positions instead of time, then reads
        memory with time and channels exchanged, so a clip's features depend on which others share its side of the
        episode (predictions are then transductive, and tied to the order of clips).
    level, rescale, sharpness: as in TRX; sharpness counts only with start. rescale multiplies features by sqrt(C).
    start: paths begin so that the untrained head is TRX on the features, with TRX's own calm beginning.
    hidden: of the long-term path's layers; 0 for 4 C as published.
    cardinalities, width, position, dropout, memory: of TRX (published width: 1152).
    scale: multiplies the logits, which are divided by C again after a rescale (1 in the paper).
    """

    side: int = 1
    groups: int = 16
    heads: int = 8
    hidden: int = 256
    released: bool = False
    level: bool = True
    rescale: bool = True
    sharpness: float = 0.4
    start: bool = True
    cardinalities: tuple[int, ...] = (2,)
    width: int = 256
    position: float = 0.1
    dropout: float = 0.1
    memory: int = 256
    scale: float = 10.0


class SloshNet(TupleHead):
    settings_class = SloshNetSettings
    recipe = Recipe(
        steps=100,
        tasks=4,
        query=5,
        rate=1e-4,
        weight_decay=5e-4,
        mix=0.5,
        evaluate_every=25,
        evaluate_episodes=60,
    )

    def __init__(self, inputs: Inputs, settings: SloshNetSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        _, self.steps, flat = inputs.one()
        if own.side < 1 or flat % own.side**2:
            raise UsageError(
                f"side={own.side} does not fit features of width {flat}; use 1 for pooled features."
            )
        dim = flat // own.side**2
        self.stretch = math.sqrt(dim) if own.rescale else 1.0
        self.short = ShortTerm(dim, own.groups, own.start)
        self.long = LongTerm(dim, own.heads, own.hidden or 4 * dim, own.released, own.start)
        self.balance = nn.Parameter(torch.zeros(2))
        self.tuples = CrossTransformers(
            dim, own.cardinalities, own.width, own.position, own.dropout, own.memory
        )
        if own.start:
            self.tuples.begin(own.sharpness, orthogonal=True)

    def seen(self, stream: Stream) -> Stream:
        """Clips of any shape through both paths."""
        lead = stream.present.shape
        flat = Stream(
            stream.x.flatten(0, -3)[None], stream.present.flatten()[None], stream.length.flatten()[None]
        )
        x = self.temporal(flat).x
        return Stream(x.reshape(*lead, *x.shape[2:]), stream.present, stream.length)

    def temporal(self, clips: Stream) -> Stream:
        """Both paths over clips [B, V, T, C * side^2]: features [B, V, T, C]."""
        side, valid = self.settings.side, clips.mask()
        x = scaled(clips, self.settings.level, self.stretch, self.balance.dtype).x
        maps = x.unflatten(-1, (-1, side, side))
        fused = self.fused(self.short(maps, valid), self.long(maps, valid), self.balance.softmax(0))
        return Stream(fused * valid[..., None].to(fused.dtype), clips.present, clips.length)

    def fused(self, short: Tensor, long: Tensor, gamma: Tensor) -> Tensor:
        """2 gamma_1 short + 2 gamma_0 long, averaged over positions: maps [..., T, C, H, W] -> [..., T, C]."""
        return (2 * gamma[1] * short + 2 * gamma[0] * long).mean((-1, -2))


class ShortTerm(nn.Module):
    """-gate * v with gate_t = sigmoid(W2 gelu(W1 (conv k_{t+1} - conv q_t))); the difference is 0 at a clip's end.

    q, k, v are linear in the channels. Convolutions are 3 x 3 a channel, the same for each of ``groups`` groups.
    """

    def __init__(self, dim: int, groups: int, start: bool) -> None:
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
        """maps [..., T, C, H, W], valid bool [..., T] -> as maps."""
        q, k, v = self.qkv(maps.movedim(-3, -1)).movedim(-1, -3).chunk(3, -3)
        q, k = self._smooth(q, self.query), self._smooth(k, self.key)
        change = F.pad(k[..., 1:, :, :, :] - q[..., :-1, :, :, :], (0, 0, 0, 0, 0, 0, 0, 1))
        onward = F.pad(valid[..., 1:], (0, 1))[..., None, None, None]
        change = (change * onward.to(change.dtype)).movedim(-3, -1)
        gate = torch.sigmoid(self.second(F.gelu(self.first(change)))).movedim(-1, -3)
        return -gate * v

    def _smooth(self, x: Tensor, kernel: Tensor) -> Tensor:
        split = x.unflatten(-3, (self.groups, -1))
        flat = F.conv2d(split.flatten(0, -4), kernel, padding=1, groups=len(kernel))
        return flat.view_as(x)


class LongTerm(nn.Module):
    """One transformer block over a clip's steps at each position: norm, attention, norm, two QuickGELU layers."""

    def __init__(self, dim: int, heads: int, hidden: int, released: bool, start: bool) -> None:
        super().__init__()
        self.heads, self.released = math.gcd(dim, heads), released
        self.before, self.between = nn.LayerNorm(dim, eps=1e-12), nn.LayerNorm(dim, eps=1e-12)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        if start:
            for layer in (self.out, self.narrow):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor, valid: Tensor) -> Tensor:
        """maps [B, V, T, C, H, W], valid bool [B, V, T] -> as maps."""
        return self._across_clips(maps) if self.released else self._over_time(maps, valid)

    def _over_time(self, maps: Tensor, valid: Tensor) -> Tensor:
        rows = maps.movedim((-2, -1), (2, 3))  # [B, V, H, W, T, C]
        # a clip without a single step attends to its zeros: finite, and masked by the caller
        allowed = (valid | ~valid.any(-1, keepdim=True))[:, :, None, None, None, None]
        return self._block(rows, allowed).movedim((2, 3), (-2, -1))

    def _across_clips(self, maps: Tensor) -> Tensor:
        batch, clips, steps, dim, high, wide = maps.shape
        rows = maps.movedim((-2, -1), (2, 3)).reshape(batch, clips * high * wide, steps, dim)
        mixed = self._block(rows.transpose(1, 2), None).transpose(1, 2)  # attention over clips and positions
        scrambled = mixed.reshape(
            batch, clips, high, wide, dim, steps
        )  # as released: time and channels exchanged
        return scrambled.movedim((2, 3), (-2, -1)).transpose(2, 3)

    def _block(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        x = x + self.out(self._attend(self.before(x), allowed))
        hidden = self.widen(self.between(x))
        return x + self.narrow(hidden * torch.sigmoid(1.702 * hidden))

    def _attend(self, x: Tensor, allowed: Tensor | None) -> Tensor:
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for t in self.qkv(x).chunk(3, -1))
        return F.scaled_dot_product_attention(q, k, v, allowed).transpose(-2, -3).flatten(-2)
