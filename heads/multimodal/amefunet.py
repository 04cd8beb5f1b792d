"""AMeFu-Net: Depth Guided Adaptive Meta-Fusion Network for Few-shot Video Recognition (Fu et al., ACM MM 2020).

A guiding modality (depth in the paper) scales and shifts the instance-normalised frames of the main one, step by step
(DGAdaIN). The mean over time, scaled to length one, is compared with class means. In training the guide is also taken
at other moments of the clip (temporal asynchronous augmentation), so that fusion survives misalignment. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.losses import cross_entropy
from ..parts.task import work_dtype
from ..parts.tensors import class_means
from ..scoring.gram import query_support, to_means
from ..settings import Recipe, Settings
from .fusion import stretch

EMBEDDED_AT_ONCE = 64  # clips
_EPSILON = 1e-5  # of the instance norm


@dataclass(frozen=True)
class AMeFuNetSettings(Settings):
    """main: the modality that is guided; "first" is the widest one. All others guide it (their maps add up).

    norm: "frame" normalises the features of each step (the released code), "channel" each feature over the clip's time
        (the paper's text).
    head: "protonet" (squared Euclidean to class means) or "cosine" (mean cosine to the class's supports).
    scale: multiplies the scores. double_softmax: cross-entropy of posteriors instead of scores (the released code).
    offsets: steps by which the guide is displaced in training; 0 alone turns the augmentation off.
    rescale: read unit features of the guide as sqrt(D) z, whose entries are of order one.
    start: "joint": the shift begins as an isometry of the guide's features, so that the untrained head compares both
        modalities, or "zero": it begins without the guide, or "random".
    """

    main: str = "first"
    norm: str = "frame"
    head: str = "protonet"
    scale: float = 10.0
    double_softmax: bool = False
    offsets: tuple[int, ...] = (0, 1, -1)
    rescale: bool = True
    start: str = "joint"


class AMeFuNet(Head):
    settings_class = AMeFuNetSettings
    recipe = Recipe(
        steps=150, rate=1e-3, weight_decay=1e-4, mix=0.5, evaluate_every=25, evaluate_episodes=200
    )
    sequences = True
    inner_products = True
    light = True

    def __init__(self, inputs: Inputs, settings: AMeFuNetSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        for name, value, known in (
            ("norm", own.norm, ("frame", "channel")),
            ("head", own.head, ("protonet", "cosine")),
            ("start", own.start, ("joint", "zero", "random")),
        ):
            if value not in known:
                raise unknown(name, value, known)
        if own.main not in ("first", *inputs.streams):
            raise unknown("main modality", own.main, ["first", *inputs.streams])
        widths = {m: dim for m, (_, dim) in inputs.streams.items()}
        self.main = max(widths, key=lambda m: widths[m]) if own.main == "first" else own.main
        guides = [m for m in widths if m != self.main]
        self.affine = nn.ModuleDict({m: Affine(widths[m], widths[self.main], own) for m in guides})

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
        """Logits [B, Q, N], the guides displaced by ``offset`` steps."""
        support, shown = self.embed(episodes.support, offset)
        query, asked = self.embed(episodes.query, offset)
        if self.settings.head == "cosine":
            weight = shown.to(query.dtype)
            every = cosine(query, support.flatten(1, 2)).unflatten(-1, shown.shape[1:])
            logits = (every * weight[:, None]).sum(-1) / weight.sum(-1).clamp(min=1)[:, None]
        else:
            logits = -squared_distances(query, class_means(support, shown)[0])
        return neutral(self.settings.scale * logits, asked, shown.any(2))

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor:
        """What each clip becomes, guided by its own other modalities."""
        rows = torch.arange(len(bank), device=bank.device).split(EMBEDDED_AT_ONCE)
        return torch.cat([self.embed({m: t.gather(r) for m, t in bank.tables.items()})[0] for r in rows])

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        if self.settings.head == "cosine":
            return self.settings.scale * query_support(gram, index).mean(-1)
        return -self.settings.scale * to_means(gram, index)

    def embed(self, streams: dict[str, Stream], offset: int = 0) -> tuple[Tensor, Tensor]:
        """Clips [..., D] of length one, and which of them have any modality, bool [...]."""
        main, guides = self._ordered(streams)
        fused = self.guided(main, {m: displaced(g, offset) for m, g in guides.items()})
        there = torch.stack([s.present for s in (main, *guides.values())]).any(0)
        return F.normalize(fused.pooled(), dim=-1) * there[..., None].to(fused.x.dtype), there

    def guided(self, main: Stream, guides: dict[str, Stream]) -> Stream:
        """DGAdaIN: xhat_t (1 + Ws z_t + bs) + Wb z_t + bb, step by step; an absent guide does nothing."""
        normal = instance_norm(main, self.settings.norm)
        scale, shift = torch.ones_like(main.x), torch.zeros_like(main.x)
        for m, guide in guides.items():
            valid = guide.mask()[..., None].to(main.x.dtype)
            by, to = self.affine[m](guide.x)
            scale, shift = scale + by * valid, shift + to * valid
        steps = torch.stack([main.length, *(g.length for g in guides.values())]).amax(0)
        return Stream(normal * scale + shift, steps > 0, steps)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """The main frames, their norm, scale and shift, and what came before each."""
        steps, dim = self.inputs.streams[self.main]
        return 4 * (ways * shots + queries) * steps * dim * 8

    def _ordered(self, streams: dict[str, Stream]) -> tuple[Stream, dict[str, Stream]]:
        """The main stream and its guides, of as many steps each; one that the task withholds is absent."""
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
            held[m] = stretch(given.to(given.x.device, dtype), steps)
        return held.pop(self.main), held

    def _objective(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.settings.double_softmax:
            logits = torch.softmax(logits, -1)
        return cross_entropy(logits, label)


class Affine(nn.Module):
    """Scale and shift of the main features from the guide's."""

    def __init__(self, guide: int, main: int, own: AMeFuNetSettings) -> None:
        super().__init__()
        self.scale, self.shift = nn.Linear(guide, main), nn.Linear(guide, main)
        self.gain = math.sqrt(guide) if own.rescale else 1.0
        if own.start != "random":
            for weight in self.parameters():
                nn.init.zeros_(weight)
        if own.start == "joint":
            # |Wb z| is as long as a normalised frame, sqrt(D): both modalities weigh the same.
            nn.init.orthogonal_(self.shift.weight, gain=math.sqrt(main / guide))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        z = z * self.gain
        return self.scale(z), self.shift(z)


def instance_norm(stream: Stream, over: str) -> Tensor:
    """x [..., T, D] with mean 0 and variance 1 over the features of each step, or over the clip's time; 0 beyond it."""
    x, valid = stream.x, stream.mask()[..., None].to(stream.x.dtype)
    if over == "frame":
        return F.layer_norm(x, x.shape[-1:], eps=_EPSILON) * valid
    count = stream.length.clamp(min=1).to(x.dtype)[..., None, None]
    centred = (x - x.sum(-2, keepdim=True) / count) * valid
    return centred * torch.rsqrt(centred.square().sum(-2, keepdim=True) / count + _EPSILON)


def displaced(stream: Stream, offset: int) -> Stream:
    """The stream ``offset`` steps later (the ends repeat)."""
    if offset == 0:
        return stream
    step = torch.arange(stream.x.shape[-2], device=stream.x.device) + offset
    last = (stream.length - 1).clamp(min=0)[..., None]
    index = torch.minimum(step.clamp(min=0), last)
    x = torch.gather(stream.x, -2, index[..., None].expand_as(stream.x))
    return Stream(x * stream.mask()[..., None].to(x.dtype), stream.present, stream.length)


def _absent(like: Stream, dim: int) -> Stream:
    x = like.x.new_zeros((*like.x.shape[:-1], dim))
    return Stream(x, torch.zeros_like(like.present), torch.zeros_like(like.length))
