"""Fusion: any single-modality head over several modalities, by one of three wrappers.

EC  early concatenation: the modalities' features side by side, one head over them.
EA  early co-attention: each modality first attends to the others, then concatenation. Learned; its output starts at
    zero, so that the untrained head equals EC.
LF  late fusion: one head a modality, the mean of their posteriors.
So ProtoNet-EC, TRX-LF and the like are configurations, not classes (names as in AMFAR's comparison, CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import TensorTable
from ...episodes.batch import Episodes, Stream
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..scoring.gram import whole
from ..scoring.once_per_clip import KEPT_AT_ONCE
from ..settings import Recipe, Settings

FUSED = "fused"


@dataclass(frozen=True)
class FusionSettings(Settings):
    """attention: width of the co-attention (EA). rule: "sum" or "product" of posteriors (LF; Kittler et al. 1998).

    temperature: divides a modality's logits before its posterior (LF).
    """

    attention: int = 64
    rule: str = "sum"
    temperature: float = 1.0


class EarlyFusion(Head):
    """EC and EA: one inner head over concatenated features.

    An absent modality of a support takes the mean of its class (else of the episode's supports); of a query, zeros,
    which lie equally far from every one-shot class. Sequences of unequal length are stretched to the longest.
    The recipe is the inner head's; where that has nothing to learn, co-attention trains by its own, slow and on blended
    classes alone: at ten times the rate it fits a dozen base classes within fifty steps and is worse on others.
    """

    settings_class = FusionSettings
    recipe = Recipe(steps=600, rate=1e-4, mix=1.0, evaluate_every=25)

    inner: Head
    attention: CoAttention | None

    def __init__(
        self,
        inputs: Inputs,
        inner: type[Head],
        inner_settings: Settings | None = None,
        settings: FusionSettings | None = None,
        attention: bool = False,
    ) -> None:
        super().__init__(inputs, settings)
        self.steps = max(steps for steps, _ in inputs.streams.values()) if inner.sequences else 1
        width = sum(dim for _, dim in inputs.streams.values())
        self.attention = CoAttention(inputs, self.settings.attention) if attention else None
        self.inner = inner(replace(inputs, streams={FUSED: (self.steps, width)}), inner_settings)
        self.batchwise, self.light = inner.batchwise, inner.light

    def forward(self, episodes: Episodes) -> Tensor:
        return self.inner(self.fuse(episodes))

    def loss(self, episodes: Episodes) -> Losses:
        return self.inner.loss(self.fuse(episodes))

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        return self.inner.batch_loss({FUSED: self._join(clips)}, label, words)

    def fit_base(self, base: FeatureBank) -> None:
        self.inner.fit_base(self._fused_bank(base))

    def scorer(
        self, bank: FeatureBank, protocol: Protocol, episodes: int, unlabelled: FeatureBank | None = None
    ) -> Scorer:
        """Join the whole table once where that is the same as joining every episode."""
        held = all(isinstance(t, TensorTable) and t.all_present for t in bank.tables.values())
        chosen = protocol.support_modalities is not None or protocol.query_modalities is not None
        if not held or chosen or protocol.missing or unlabelled is not None:
            return super().scorer(bank, protocol, episodes, unlabelled)
        return self.inner.scorer(self._fused_bank(bank), protocol, episodes)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return self.inner.episode_bytes(ways, shots, queries)

    @torch.no_grad()
    def _fused_bank(self, base: FeatureBank) -> FeatureBank:
        """The same clips as the inner head sees them."""
        rows = torch.arange(len(base), device=base.device).split(KEPT_AT_ONCE)
        parts = [self._join({m: base.tables[m].gather(r) for m in self.inputs.streams}) for r in rows]
        x, length, present = (torch.cat(each) for each in zip(*[(p.x, p.length, p.present) for p in parts]))
        table = TensorTable(x, length, present)
        return replace(base, tables={FUSED: table}, streams={FUSED: next(iter(base.streams.values()))})

    def fuse(self, episodes: Episodes) -> Episodes:
        """The same episodes with one modality, "fused". A modality that the task withholds is a block of zeros."""
        if set(episodes.support) != set(episodes.query):
            raise UsageError(
                "Early fusion cannot compare supports and queries of different modalities; use --method common-space."
            )
        support = self._join({m: _imputed(s) for m, s in episodes.support.items()}, episodes.support)
        query = self._join(episodes.query)
        extra = None if episodes.unlabelled is None else {FUSED: self._join(episodes.unlabelled)}
        return replace(episodes, support={FUSED: support}, query={FUSED: query}, unlabelled=extra)

    def _join(self, streams: Mapping[str, Stream], original: Mapping[str, Stream] | None = None) -> Stream:
        """Concatenate along D; present where any modality is."""
        like = next(iter(streams.values()))
        ordered = {
            m: streams[m] if m in streams else _nothing(like, *shape)
            for m, shape in self.inputs.streams.items()
        }
        if self.attention is not None:
            ordered = self.attention(ordered)
        stretched = [stretch(s, self.steps) for s in ordered.values()]
        source = list((original or ordered).values())
        present = torch.stack([s.present for s in source]).any(0)
        x = torch.cat([s.x for s in stretched], -1)
        length = torch.stack([s.length for s in stretched]).amax(0) * present
        return Stream(x, present, length)


class LateFusion(Head):
    """LF: an inner head for every modality; the mean of the posteriors of the modalities a query has."""

    settings_class = FusionSettings
    inner: nn.ModuleDict

    def __init__(
        self,
        inputs: Inputs,
        inner: type[Head],
        inner_settings: Settings | None = None,
        settings: FusionSettings | None = None,
    ) -> None:
        super().__init__(inputs, settings)
        if self.settings.rule not in ("sum", "product"):
            raise UsageError(f"rule={self.settings.rule!r} is not known; use sum or product.")
        self.light = inner.light
        self.inner = nn.ModuleDict(
            {
                m: inner(replace(inputs, streams={m: shape}), inner_settings)
                for m, shape in inputs.streams.items()
            }
        )

    def forward(self, episodes: Episodes) -> Tensor:
        shared = [m for m in self.inputs.streams if m in episodes.support and m in episodes.query]
        if not shared:
            raise UsageError("Late fusion needs a modality that both support and query carry.")
        logits = torch.stack([self.inner[m](episodes.only([m])) for m in shared])
        joint = self.joint(logits, torch.stack([episodes.query[m].present for m in shared]))
        any_query = torch.stack([episodes.query[m].present for m in shared]).any(0)
        any_class = torch.stack([episodes.support[m].present.any(2) for m in shared]).any(0)
        return neutral(joint, any_query, any_class)

    def joint(self, logits: Tensor, present: Tensor) -> Tensor:
        """Logits [B, Q, N] of all modalities from those of each [M, B, Q, N]; present: bool [M, B, Q]."""
        log_p = F.log_softmax(logits / self.settings.temperature, -1)
        weight = present[..., None].to(log_p.dtype)
        total = weight.sum(0).clamp(min=1)
        if self.settings.rule == "product":
            return (weight * log_p).sum(0) / total
        return ((weight * log_p.exp()).sum(0) / total).clamp(min=1e-12).log()

    def scorer(
        self, bank: FeatureBank, protocol: Protocol, episodes: int, unlabelled: FeatureBank | None = None
    ) -> Scorer:
        """Each modality in its head's own way, where every clip has all of them."""
        if not whole(bank, protocol) or unlabelled is not None:
            return super().scorer(bank, protocol, episodes, unlabelled)
        each = [self._head(m).scorer(bank.select([m]), protocol, episodes) for m in self.inputs.streams]

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            logits = torch.stack([part(index) for part in each])
            return self.joint(logits, torch.ones_like(logits[..., 0], dtype=torch.bool))

        return Scorer(score, all(part.of_numbers for part in each))

    def loss(self, episodes: Episodes) -> Losses:
        """The sum of the modalities' own objectives: each learns alone, as in the published -LF baselines."""
        each = {m: self._head(m).loss(episodes.only([m])) for m in self.inputs.streams if m in episodes.query}
        parts = {f"{m}.{name}": value for m, losses in each.items() for name, value in losses.parts.items()}
        return Losses(torch.stack([losses.total for losses in each.values()]).sum(), parts)

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        each = {m: self._head(m).batch_loss({m: s}, label, words) for m, s in clips.items()}
        parts = {f"{m}.{name}": value for m, losses in each.items() for name, value in losses.parts.items()}
        return Losses(torch.stack([losses.total for losses in each.values()]).sum(), parts)

    def fit_base(self, base: FeatureBank) -> None:
        for m in self.inputs.streams:
            self._head(m).fit_base(base.select([m]))

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        return {m: self.inner[m](episodes.only([m])) for m in self.inputs.streams if m in episodes.query}

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return max(self._head(m).episode_bytes(ways, shots, queries) for m in self.inputs.streams)

    def _head(self, modality: str) -> Head:
        head = self.inner[modality]
        assert isinstance(head, Head)
        return head


class CoAttention(nn.Module):
    """Each modality's steps attend to the steps of the others (scaled dot product, width ``width``); residual."""

    query: nn.ModuleDict
    key: nn.ModuleDict
    value: nn.ModuleDict
    out: nn.ModuleDict

    def __init__(self, inputs: Inputs, width: int) -> None:
        super().__init__()
        dims = {m: dim for m, (_, dim) in inputs.streams.items()}
        self.query = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in dims.items()})
        self.key = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in dims.items()})
        self.value = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in dims.items()})
        self.out = nn.ModuleDict({m: nn.Linear(width, d, bias=False) for m, d in dims.items()})
        for m in dims:
            nn.init.zeros_(self.out[m].get_parameter("weight"))
        self.width = width

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {m: self._attend(m, streams) for m in streams}

    def _attend(self, m: str, streams: Mapping[str, Stream]) -> Stream:
        mine = streams[m]
        others = [o for o in streams if o != m]
        key = torch.cat([self.key[o](streams[o].x) for o in others], -2)
        value = torch.cat([self.value[o](streams[o].x) for o in others], -2)
        valid = torch.cat([streams[o].mask() for o in others], -1)
        logits = self.query[m](mine.x) @ key.transpose(-1, -2) / self.width**0.5
        weight = torch.softmax(logits.masked_fill(~valid[..., None, :], -1e4), -1)
        weight = weight * valid[..., None, :].to(weight.dtype)
        update = self.out[m](weight @ value) * mine.mask()[..., None].to(mine.x.dtype)
        return Stream(mine.x + update, mine.present, mine.length)


def stretch(stream: Stream, steps: int) -> Stream:
    """A stream with ``steps`` steps: each clip's valid steps repeated evenly (nearest), or averaged where steps = 1."""
    if stream.x.shape[-2] == steps:
        return stream
    if steps == 1:
        return Stream(stream.pooled()[..., None, :], stream.present, stream.present.to(stream.length.dtype))
    grid = torch.arange(steps, device=stream.x.device)
    index = (grid * stream.length.clamp(min=1)[..., None]) // steps
    x = torch.gather(stream.x, -2, index[..., None].expand(*index.shape, stream.x.shape[-1]))
    return Stream(x, stream.present, stream.present.to(stream.length.dtype) * steps)


def _nothing(like: Stream, steps: int, dim: int) -> Stream:
    """An absent modality for the same clips."""
    x = like.x.new_zeros((*like.present.shape, steps, dim))
    return Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))


def _imputed(support: Stream) -> Stream:
    """Absent supports [B, N, K, T, D] take their class's mean, else the mean of the episode's supports."""
    if support.present.all():
        return support
    weight = support.present.to(support.x.dtype)[..., None, None]
    total, count = (support.x * weight).sum(2, keepdim=True), weight.sum(2, keepdim=True)
    everyone = total.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
    fill = torch.where(count > 0, total / count.clamp(min=1), everyone)
    x = torch.where(support.present[..., None, None], support.x, fill)
    steps = support.length.amax(dim=(1, 2), keepdim=True).expand_as(support.length)
    return Stream(x, support.present, torch.where(support.present, support.length, steps))
