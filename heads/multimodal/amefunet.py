"""AMeFu-Net: Depth Guided Adaptive Meta-Fusion Network for Few-shot Video Recognition (Fu et al., ACM MM 2020).

A guiding modality (depth in the paper) scales and shifts the instance-normalised frames of the main one, step by step
(DGAdaIN). The mean over time, scaled to length one, is compared with class means. In training the guide is also taken
at other moments of the clip (temporal asynchronous augmentation), so that fusion survives misalignment. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.losses import cross_entropy
from ..parts.names import module_name
from ..parts.steps import stretched
from ..parts.task import work_dtype
from ..parts.tensors import class_means
from ..scoring.gram import FromGram, Products
from ..scoring.shortcut import Shortcut
from ..settings import Positive, Recipe, Settings

EMBEDDED_AT_ONCE = 64  # This many clips of a test are embedded at once.
NORM_EPSILON = 1e-5  # The instance norm adds this to variances.


@dataclass(frozen=True)
class AMeFuNetSettings(Settings):
    """AMeFu-Net's settings."""

    main: str = "first"
    """The modality that is guided; "first" is the widest one. All others guide it, and their maps add up."""
    norm: Literal["frame", "channel"] = "frame"
    """Normalise the features of each step (the released code), or each feature over the clip's time (the paper's
    text)."""
    head: Literal["protonet", "cosine"] = "protonet"
    """Score by minus the squared Euclidean distance to class means, or by the mean cosine to a class's supports."""
    scale: Positive = 10.0
    """The factor of the scores."""
    double_softmax: bool = False
    """Take the cross-entropy of posteriors instead of scores (the released code)."""
    offsets: tuple[int, ...] = (0, 1, -1)
    """The numbers of steps by which the guide is displaced in training; 0 alone turns the augmentation off."""
    rescale: bool = True
    """Read unit features of the guide as sqrt(D) z, whose entries are of order one."""
    start: Literal["joint", "zero", "random"] = "joint"
    """The shift begins as an isometry of the guide's features, so that the untrained head compares both modalities
    ("joint"), without the guide ("zero"), or as torch begins its layers ("random")."""


class AMeFuNet(Head[AMeFuNetSettings]):
    Settings = AMeFuNetSettings
    recipe = Recipe(
        steps=150, rate=1e-3, weight_decay=1e-4, mix=0.5, evaluate_every=25, evaluate_episodes=200
    )

    def __init__(self, inputs: Inputs, settings: AMeFuNetSettings) -> None:
        super().__init__(inputs, settings)
        if settings.main not in ("first", *inputs.streams):
            raise unknown("main modality", settings.main, ["first", *inputs.streams])
        widths = {m: dim for m, (_, dim) in inputs.streams.items()}
        self.main = max(widths, key=lambda m: widths[m]) if settings.main == "first" else settings.main
        guides = [m for m in widths if m != self.main]
        self.affine = nn.ModuleDict(
            {module_name(m): Affine(widths[m], widths[self.main], settings) for m in guides}
        )

    def forward(self, episodes: Episodes) -> Tensor:
        return self.scores(episodes)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy, averaged over the guide's displacements (the paper takes a step for each)."""
        each = [
            self._objective(self.scores(episodes, offset), episodes.query_label)
            for offset in self.settings.offsets
        ]
        value = torch.stack(each).mean()
        return Losses(value, {"ce": value})

    def scores(self, episodes: Episodes, offset: int = 0) -> Tensor:
        """Logits [B, Q, N], with the guides displaced by ``offset`` steps."""
        support, support_present = self.embed(episodes.support, offset)
        query, query_present = self.embed(episodes.query, offset)
        if self.settings.head == "cosine":
            weight = support_present.to(query.dtype)
            each = cosine(query, support.flatten(1, 2)).unflatten(-1, support_present.shape[1:])
            logits = (each * weight[:, None]).sum(-1) / weight.sum(-1).clamp(min=1)[:, None]
        else:
            logits = -squared_distances(query, class_means(support, support_present)[0])
        return neutral(self.settings.scale * logits, query_present, support_present.any(2))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip is embedded once, guided by its own other modalities, and scores are read from products."""
        return (FromGram(logits=self._scores_from_products, points=self.points),)

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor:
        """The embedded clips of a bank [n, D]."""
        rows = torch.arange(len(bank), device=bank.device).split(EMBEDDED_AT_ONCE)
        return torch.cat([self.embed({m: t.gather(r) for m, t in bank.tables.items()})[0] for r in rows])

    def _scores_from_products(self, products: Products) -> Tensor:
        if self.settings.head == "cosine":
            return self.settings.scale * products.query_support.mean(-1)
        return -self.settings.scale * products.squared_distance_to_mean()

    def embed(self, streams: Mapping[str, Stream], offset: int = 0) -> tuple[Tensor, Tensor]:
        """Clips as vectors [..., D] of length one, and which of them have any modality, bool [...]."""
        main, guides = self._ordered(streams)
        fused = self.guided(main, {m: displaced(g, offset) for m, g in guides.items()})
        present = torch.stack([s.present for s in (main, *guides.values())]).any(0)
        return F.normalize(fused.pooled(), dim=-1) * present[..., None].to(fused.x.dtype), present

    def guided(self, main: Stream, guides: dict[str, Stream]) -> Stream:
        """DGAdaIN: xhat_t (1 + Ws z_t + bs) + Wb z_t + bb of every step t; an absent guide does nothing."""
        normal = instance_norm(main, self.settings.norm)
        scale, shift = torch.ones_like(main.x), torch.zeros_like(main.x)
        for m, guide in guides.items():
            valid = guide.mask()[..., None].to(main.x.dtype)
            more_scale, more_shift = self.affine[module_name(m)](guide.x)
            scale, shift = scale + more_scale * valid, shift + more_shift * valid
        steps = torch.stack([main.length, *(g.length for g in guides.values())]).amax(0)
        return Stream(normal * scale + shift, steps > 0, steps)

    def _ordered(self, streams: Mapping[str, Stream]) -> tuple[Stream, dict[str, Stream]]:
        """The main stream and its guides, of as many steps each; one that the task withholds is absent.

        Raises UsageError where the task has none of the head's modalities.
        """
        if not any(m in streams for m in self.inputs.streams):
            raise UsageError(
                f"This head was built for {', '.join(self.inputs.streams)}; none of them is in the task."
            )
        like = next(s for m, s in streams.items() if m in self.inputs.streams)
        dtype = work_dtype(like.x.dtype, self)
        steps = self.inputs.streams[self.main][0]
        held = {}
        for m, (_, dim) in self.inputs.streams.items():
            given = streams.get(m) or _absent(like, dim)
            held[m] = stretched(given.to(given.x.device, dtype), steps)
        return held.pop(self.main), held

    def _objective(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.settings.double_softmax:
            logits = torch.softmax(logits, -1)
        return cross_entropy(logits, label)


class Affine(nn.Module):
    """The scale and the shift [..., main] of the main features, from the guide's [..., guide]."""

    def __init__(self, guide: int, main: int, settings: AMeFuNetSettings) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(guide, main), nn.Linear(guide, main)
        self.gain = math.sqrt(guide) if settings.rescale else 1.0
        if settings.start != "random":
            for weight in self.parameters():
                nn.init.zeros_(weight)
        if settings.start == "joint":
            # |Wb z| is as long as a normalised frame, sqrt(D): both modalities weigh the same.
            nn.init.orthogonal_(self.shift.weight, gain=math.sqrt(main / guide))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z * self.gain
        return self.scale(z), self.shift(z)


def instance_norm(stream: Stream, over: Literal["frame", "channel"]) -> Tensor:
    """Features [..., T, D] with mean 0 and variance 1 over each step, or over the clip's time; 0 beyond the clip."""
    x, valid = stream.x, stream.mask()[..., None].to(stream.x.dtype)
    if over == "frame":
        return F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON) * valid
    count = stream.length.clamp(min=1).to(x.dtype)[..., None, None]
    centred = (x - x.sum(-2, keepdim=True) / count) * valid
    return centred * torch.rsqrt(centred.square().sum(-2, keepdim=True) / count + NORM_EPSILON)


def displaced(stream: Stream, offset: int) -> Stream:
    """The stream as it is ``offset`` steps later; its first or last step is repeated at the end that runs out."""
    if offset == 0:
        return stream
    step = torch.arange(stream.x.shape[-2], device=stream.x.device) + offset
    last = (stream.length - 1).clamp(min=0)[..., None]
    index = torch.minimum(step.clamp(min=0), last)
    x = torch.gather(stream.x, -2, index[..., None].expand_as(stream.x))
    return Stream(x * stream.mask()[..., None].to(x.dtype), stream.present, stream.length)


def _absent(like: Stream, dim: int) -> Stream:
    """An absent modality of width ``dim`` for the same clips."""
    x = like.x.new_zeros((*like.x.shape[:-1], dim))
    return Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))
