"""Fusion: any single-modality head over several modalities, by one of three wrappers.

EC  early concatenation: the modalities' features side by side, one head over them.
EA  early co-attention: each modality first attends to the others, then concatenation. Learned; its output starts at
    zero, so that the untrained head equals EC.
LF  late fusion: one head a modality, the mean of their posteriors (or their product, or the greatest).
Each modality may have a fixed weight, fitted on base episodes: EC and EA multiply its features by the square root, so
that squared distances are weighted, and LF its posteriors.
So ProtoNet-EC, TRX-LF and the like are configurations, not classes (names as in AMFAR's comparison, CVPR 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.schema import StreamName
from ...cache.table import Table, TensorTable
from ...episodes.batch import Episodes, Stream
from ...episodes.protocol import Protocol
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.names import module_name
from ..parts.steps import stretched
from ..scoring.once_per_clip import KEPT_AT_ONCE
from ..scoring.shortcut import Shortcut
from ..scoring.wrapped import JoinedBranches, OverMappedBank
from ..settings import Count, Positive, Recipe, Settings
from .weights import ModalityWeights, class_mean_views, fitted_weights

FUSED = "fused"


@dataclass(frozen=True)
class FusionSettings(Settings):
    """What a fusion wrapper lets its user choose, by ``--set fusion.key=value``."""

    attention: Count = 64
    """The width of the co-attention (EA)."""
    rule: Literal["sum", "product", "max"] = "sum"
    """How posteriors are joined (LF; Kittler et al. 1998); "max" lets the most certain modality decide each query."""
    temperature: Positive = 1.0
    """What a modality's logits are divided by before its posterior (LF)."""
    weights: Literal["base", "equal"] = "base"
    """What modalities weigh: what base episodes choose where that is better beyond doubt, or all the same."""


class Fusion(Head[FusionSettings]):
    """What the wrappers share: the weights of the modalities."""

    Settings = FusionSettings
    weights: ModalityWeights

    def __init__(self, inputs: Inputs, settings: FusionSettings) -> None:
        super().__init__(inputs, settings)
        self.weights = ModalityWeights.equal(list(inputs.streams))

    @property
    def fits_weights(self) -> bool:
        return self.settings.weights == "base"

    def fit_weights(self, base: FeatureBank, task: Protocol) -> None:
        names, views = list(self.inputs.streams), class_mean_views(self.inputs)
        self.weights = fitted_weights(base.pooled(), task, names, views=views, join=self.joined_class_means)

    def joined_class_means(self, logits: Tensor, factors: Tensor) -> Tensor:
        """Logits [B, Q, N] of class means as the fusion joins them; logits [M, B, Q, N], factors [M]."""
        raise TypeError(f"{type(self).__name__} does not define joined_class_means")


class EarlyFusion(Fusion):
    """EC and EA: one inner head reads concatenated features.

    An absent modality of a support takes the mean of its class (else of the episode's supports); of a query, zeros,
    which lie equally far from every one-shot class. Sequences of unequal length are stretched to the longest.
    The recipe is the inner head's; where that has nothing to learn, co-attention trains by its own, slow and on blended
    classes alone: at ten times the rate it fits a dozen base classes within fifty steps and is worse on others.
    """

    recipe = Recipe(steps=600, rate=1e-4, mix=1.0, evaluate_every=25)

    inner: Head[Any]
    attention: CoAttention | None

    def __init__(
        self,
        inputs: Inputs,
        settings: FusionSettings,
        make: Callable[[Inputs], Head[Any]],
        *,
        reads_time: bool,
        attention: bool = False,
    ) -> None:
        """``make`` builds the inner head for given inputs; the flags say that it reads steps, and EA instead of EC."""
        super().__init__(inputs, settings)
        self.steps = max(steps for steps, _ in inputs.streams.values()) if reads_time else 1
        width = sum(dim for _, dim in inputs.streams.values())
        self.attention = CoAttention(inputs, settings.attention) if attention else None
        self.inner = make(replace(inputs, streams={FUSED: (self.steps, width)}))
        if any(weight.requires_grad for weight in self.inner.parameters()):
            self.recipe = self.inner.recipe

    def forward(self, episodes: Episodes) -> Tensor:
        logits: Tensor = self.inner(self.fuse(episodes))
        return logits

    def joined_class_means(self, logits: Tensor, factors: Tensor) -> Tensor:
        return torch.einsum("mbqn,m->bqn", logits, factors)

    def loss(self, episodes: Episodes) -> Losses:
        return self.inner.loss(self.fuse(episodes))

    def fit_base(self, base: FeatureBank) -> None:
        self.inner.fit_base(replace(base, tables=self.fused(base), streams=_fused_stream(base)))

    def fit_val(self, val: FeatureBank) -> None:
        self.inner.fit_val(replace(val, tables=self.fused(val), streams=_fused_stream(val)))

    def chosen(self) -> dict[str, Any]:
        return self.inner.chosen()

    def notes(self) -> list[str]:
        return self.inner.notes()

    def shortcuts(self) -> Iterable[Shortcut]:
        """The whole table is joined once, and the inner head takes its own best way."""
        return (OverMappedBank(tables=self.fused, inner=self.inner),)

    @torch.no_grad()
    def fused(self, bank: FeatureBank) -> dict[str, Table]:
        """The bank's clips as the inner head sees them."""
        rows = torch.arange(len(bank), device=bank.device).split(KEPT_AT_ONCE)
        parts = [self._join({m: bank.tables[m].gather(r) for m in self.inputs.streams}) for r in rows]
        x, length, present = (torch.cat(each) for each in zip(*[(p.x, p.length, p.present) for p in parts]))
        return {FUSED: TensorTable(x, length, present)}

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
        """The streams side by side along D; a clip is present where any of its modalities is.

        original: the streams of which that is asked, where absent clips of ``streams`` have been filled in.
        """
        like = next(iter(streams.values()))
        ordered = {
            m: streams[m] if m in streams else _absent(like, *shape)
            for m, shape in self.inputs.streams.items()
        }
        if self.attention is not None:
            ordered = self.attention(ordered)
        streams_of_one_length = [stretched(s, self.steps) for s in self._weighted(ordered).values()]
        source = list((original or ordered).values())
        present = torch.stack([s.present for s in source]).any(0)
        x = torch.cat([s.x for s in streams_of_one_length], -1)
        length = torch.stack([s.length for s in streams_of_one_length]).amax(0) * present
        return Stream(x, present, length)

    def _weighted(self, streams: dict[str, Stream]) -> dict[str, Stream]:
        """The streams times the square roots of their weights."""
        if self.weights.are_equal:
            return streams
        factors = zip(streams.items(), self.weights.factors(list(streams)))
        return {m: Stream(s.x * factor**0.5, s.present, s.length) for (m, s), factor in factors}


class LateFusion(Fusion):
    """LF: every modality has an inner head, and the posteriors of the modalities that a query has are averaged."""

    def __init__(self, inputs: Inputs, settings: FusionSettings, make: Callable[[Inputs], Head[Any]]) -> None:
        """``make`` builds the head of one modality for given inputs."""
        super().__init__(inputs, settings)
        self.heads = {m: make(replace(inputs, streams={m: shape})) for m, shape in inputs.streams.items()}
        self.inner = nn.ModuleDict({module_name(m): head for m, head in self.heads.items()})
        self.recipe = next(iter(self.heads.values())).recipe

    def forward(self, episodes: Episodes) -> Tensor:
        shared = [m for m in self.inputs.streams if m in episodes.support and m in episodes.query]
        if not shared:
            raise UsageError("Late fusion needs a modality that both support and query carry.")
        logits = torch.stack([self.heads[m](episodes.only([m])) for m in shared])
        query_present = torch.stack([episodes.query[m].present for m in shared])
        joint = self.joint(logits, query_present, self.weights.of(shared, logits))
        # What is known of a class without a support is the heads' to say: by words they know of it, others say nothing.
        every_class = torch.ones_like(episodes.class_id, dtype=torch.bool)
        return neutral(joint, query_present.any(0), every_class)

    def joined_class_means(self, logits: Tensor, factors: Tensor) -> Tensor:
        return self.joint(logits, torch.ones_like(logits[..., 0], dtype=torch.bool), factors)

    def joint(self, logits: Tensor, present: Tensor, factors: Tensor) -> Tensor:
        """Logits [B, Q, N] of all modalities from those of each [M, B, Q, N].

        present: bool [M, B, Q]; factors: what the modalities weigh, relative to equal weights, [M].
        """
        log_p = F.log_softmax(logits / self.settings.temperature, -1)
        weight = present[..., None].to(log_p.dtype) * factors[:, None, None, None]
        total = weight.sum(0)
        total = torch.where(total > 0, total, 1.0)
        if self.settings.rule == "product":
            return (weight * log_p).sum(0) / total
        if self.settings.rule == "max":
            return (weight * log_p.exp()).amax(0).clamp(min=1e-12).log()
        return ((weight * log_p.exp()).sum(0) / total).clamp(min=1e-12).log()

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each modality in its head's own best way, where every clip has all of them."""

        def alone(bank: FeatureBank, modality: str) -> dict[str, Table]:
            return {modality: bank.tables[modality]}

        def join(logits: Mapping[str, Tensor]) -> Tensor:
            each = torch.stack(list(logits.values()))
            return self.joined_class_means(each, self.weights.of(list(logits), each))

        return (JoinedBranches(heads=self.heads, tables=alone, join=join),)

    def loss(self, episodes: Episodes) -> Losses:
        """The sum of the modalities' own objectives: each learns alone, as in the published -LF baselines."""
        each = {m: self.heads[m].loss(episodes.only([m])) for m in self.inputs.streams if m in episodes.query}
        parts = {f"{m}.{name}": value for m, losses in each.items() for name, value in losses.parts.items()}
        return Losses(torch.stack([losses.total for losses in each.values()]).sum(), parts)

    def fit_base(self, base: FeatureBank) -> None:
        for m, head in self.heads.items():
            head.fit_base(base.select([m]))

    def fit_val(self, val: FeatureBank) -> None:
        for m, head in self.heads.items():
            head.fit_val(val.select([m]))

    def chosen(self) -> dict[str, Any]:
        return {f"{m}.{key}": value for m, head in self.heads.items() for key, value in head.chosen().items()}

    def notes(self) -> list[str]:
        return [f"{m}: {note}" for m, head in self.heads.items() for note in head.notes()]

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        return {m: self.heads[m](episodes.only([m])) for m in self.inputs.streams if m in episodes.query}


class CoAttention(nn.Module):
    """Each modality's steps attend to the steps of the others, by scaled dot products of width ``width``.

    What they gather is added to them.
    """

    query: nn.ModuleDict
    key: nn.ModuleDict
    value: nn.ModuleDict
    out: nn.ModuleDict

    def __init__(self, inputs: Inputs, width: int) -> None:
        super().__init__()
        dims = {m: dim for m, (_, dim) in inputs.streams.items()}
        names = {module_name(m): d for m, d in dims.items()}
        self.query = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in names.items()})
        self.key = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in names.items()})
        self.value = nn.ModuleDict({m: nn.Linear(d, width, bias=False) for m, d in names.items()})
        self.out = nn.ModuleDict({m: nn.Linear(width, d, bias=False) for m, d in names.items()})
        for m in names:
            nn.init.zeros_(self.out[m].get_parameter("weight"))
        self.width = width

    def forward(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        return {m: self._attend(m, streams) for m in streams}

    def _attend(self, m: str, streams: Mapping[str, Stream]) -> Stream:
        own = streams[m]
        others = [o for o in streams if o != m]
        key = torch.cat([self.key[module_name(o)](streams[o].x) for o in others], -2)
        value = torch.cat([self.value[module_name(o)](streams[o].x) for o in others], -2)
        valid = torch.cat([streams[o].mask() for o in others], -1)
        logits = self.query[module_name(m)](own.x) @ key.transpose(-1, -2) / self.width**0.5
        weight = torch.softmax(logits.masked_fill(~valid[..., None, :], -1e4), -1)
        weight = weight * valid[..., None, :].to(weight.dtype)
        update = self.out[module_name(m)](weight @ value) * own.mask()[..., None].to(own.x.dtype)
        return Stream(own.x + update, own.present, own.length)


def _fused_stream(bank: FeatureBank) -> dict[str, StreamName]:
    """Joined features keep the name of the first of their streams."""
    return {FUSED: next(iter(bank.streams.values()))}


def _absent(like: Stream, steps: int, dim: int) -> Stream:
    """An absent modality for the same clips."""
    x = like.x.new_zeros((*like.present.shape, steps, dim))
    return Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))


def _imputed(support: Stream) -> Stream:
    """Absent supports [B, N, K, T, D] take their class's mean, else the mean of the episode's supports."""
    if support.present.all():
        return support
    weight = support.present.to(support.x.dtype)[..., None, None]
    total, count = (support.x * weight).sum(2, keepdim=True), weight.sum(2, keepdim=True)
    overall = total.sum(1, keepdim=True) / count.sum(1, keepdim=True).clamp(min=1)
    fill = torch.where(count > 0, total / count.clamp(min=1), overall)
    x = torch.where(support.present[..., None, None], support.x, fill)
    steps = support.length.amax(dim=(1, 2), keepdim=True).expand_as(support.length)
    return Stream(x, support.present, torch.where(support.present, support.length, steps))
