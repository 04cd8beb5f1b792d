"""HyRSM: Hybrid Relation Guided Set Matching for Few-shot Action Recognition (Wang et al., CVPR 2022).

The frames of a clip attend to one another, then, for each query by itself, the clips of the task do; two clips are
compared as sets of frames by a bidirectional mean Hausdorff distance. In training the frames' base classes are told
apart, too. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.context import TaskContext
from ..parts.losses import cross_entropy
from ..parts.positions import sinusoid
from ..parts.set_matching import hausdorff
from ..parts.steps import unit_gain
from ..parts.tensors import class_means, single
from ..settings import Count, NonNegative, Positive, Recipe, Settings


@dataclass(frozen=True)
class HyRSMSettings(Settings):
    """HyRSM's settings."""

    heads: Count = 8
    """The heads of both attentions; where they do not divide D, the nearest smaller number that does."""
    position_a: Positive = 10.0
    """What features are divided by before the position code is added: x becomes x sqrt(D / position_a)."""
    position_b: NonNegative = 1.0
    """The weight of the position code that is added to every frame."""
    form: Literal["auto", "videos", "prototypes"] = "auto"
    """What the clips of a task are. Videos: every support by itself (released for 1 shot). Prototypes: supports are
    averaged frame by frame first (released for 2 to 5 shots). Auto: by the number of shots."""
    average: bool = True
    """The frames' minima are averaged, as in the paper; false: they are summed, as released (T times as large)."""
    scale: Positive = 10.0
    """The factor of the logits."""
    classify: NonNegative = 0.15
    """The weight of the cross-entropy of the frames' base classes."""
    rescale: bool = True
    """Multiply unit features by sqrt(D), the scale that the position code was chosen for."""
    rectify: Literal["auto", "always", "never"] = "auto"
    """The ReLU after the frames' attention: always, as published, for non-negative features; never; or auto, which is
    never where the base classes' features have negative entries, half of which it would cut away."""
    start: bool = True
    """Both relations begin as the identity, so that the untrained head is the set matching alone; false: at random."""


class Clips(NamedTuple):
    """Clips [...] after the frames' relation.

    frames [..., T, D]; mapped [..., T, D]: what they add to the blend with the task; valid: bool [..., T], which steps
    count.
    """

    frames: Tensor
    mapped: Tensor
    valid: Tensor


class Related(NamedTuple):
    """Frames after the clips' relation, in which every query has its own view of the class entries.

    support [B, Q, S, T, D], query [B, Q, T, D]; support_valid [B, S, T], query_valid [B, Q, T]: which steps count.
    """

    support: Tensor
    query: Tensor
    support_valid: Tensor
    query_valid: Tensor


H = TypeVar("H", bound=HyRSMSettings)


class HyRSM(EncodingHead[H, Clips, Clips]):
    Settings = HyRSMSettings
    recipe = Recipe(
        steps=300,
        tasks=4,
        query=5,
        rate=1e-4,
        weight_decay=5e-4,
        evaluate_episodes=200,
        patience=3,
        every_core=True,
    )
    base_id: Tensor

    def __init__(self, inputs: Inputs, settings: H) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        heads = next(h for h in range(min(settings.heads, dim), 0, -1) if dim % h == 0)
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.within = FrameRelation(dim, heads, rectify=settings.rectify != "never")
        self.between = ClipRelation(dim, heads)
        self.blend = nn.Linear(2 * dim, dim)
        self.position_dropout = nn.Dropout(0.1)
        self.classifier: nn.Linear | None = None
        self.register_buffer("base_id", torch.zeros(0, dtype=torch.int64))
        if settings.start:
            nn.init.zeros_(self.within.out.weight)
            nn.init.zeros_(self.within.out.bias)
            nn.init.zeros_(self.blend.bias)
            self.blend.weight.data = torch.eye(dim, 2 * dim)

    def fit_base(self, base: FeatureBank) -> None:
        """Makes the base classifier of the auxiliary loss, one row a base class; sees whether features are signed."""
        self.set_classes(base.class_id)
        if self.settings.rectify == "auto":
            (table,) = base.tables.values()
            some = table.gather(torch.arange(min(len(base), 256), device=base.device)).x
            self.within.below_zero.fill_(float(bool((some < -1e-6).any())))

    def set_classes(self, class_id: Tensor) -> None:
        """Makes a fresh classifier over the classes ``class_id`` [C]."""
        like = self.blend.weight
        self.base_id = class_id.clone()
        self.classifier = nn.Linear(like.shape[0], len(class_id), device=like.device, dtype=like.dtype)

    def encode(self, clips: Stream) -> Clips:
        """Position codes, then the frames' relation; zeros beyond a clip's length."""
        x, valid = clips.x.to(self.blend.weight.dtype) * self.gain, clips.mask()
        scaled = x * (x.shape[-1] / self.settings.position_a) ** 0.5
        placed = scaled + self.settings.position_b * sinusoid(x.shape[-2], x, slow=False)
        frames = self.within(self.position_dropout(placed), valid) * valid[..., None].to(x.dtype)
        return Clips(frames, F.linear(frames, self.blend.weight.chunk(2, -1)[0]), valid)

    def compare(self, support: Clips, query: Clips, context: TaskContext) -> Tensor:
        return self.logits(self.relate(support, query), context.support_present)

    def relate(self, support: Clips, query: Clips) -> Related:
        """Frames of supports [B, N, K] and queries [B, Q] after the clips' relation.

        The blend is a linear layer of [frame || token]: the frame's part is the same whatever the task.
        """
        by_class = self._by_class(support.valid.shape[2])
        entry = frame_means(support) if by_class else Clips(*(part.flatten(1, 2) for part in support))
        tokens = self.between(token(entry), token(query), entry.valid.any(-1), query.valid.any(-1))
        moved = F.linear(tokens, self.blend.weight.chunk(2, -1)[1], self.blend.bias)
        return Related(
            support=entry.mapped[:, None] + moved[:, :, :-1, None],
            query=query.mapped + moved[:, :, -1:],
            support_valid=entry.valid,
            query_valid=query.valid,
        )

    def _by_class(self, shots: int) -> bool:
        """Whether the entries of a task are its classes rather than its supports."""
        return self.settings.form == "prototypes" or (self.settings.form == "auto" and shots > 1)

    def logits(self, related: Related, support_present: Tensor) -> Tensor:
        """Minus the set distance [B, Q, N] to each class; support_present: bool [B, N, K]."""
        s, q = (F.normalize(x.float() if x.dtype == torch.bfloat16 else x, dim=-1) for x in related[:2])
        distance = hausdorff(
            1 - s @ q[:, :, None].transpose(-1, -2),
            related.support_valid[:, None],
            related.query_valid[:, :, None],
            average=self.settings.average,
        )
        if not self._by_class(support_present.shape[2]):
            by_class = distance.unflatten(-1, support_present.shape[1:]).movedim(1, -1)  # [B, N, K, Q]
            distance = class_means(by_class, support_present)[0].transpose(1, 2)
        return -self.settings.scale * distance

    def loss(self, episodes: Episodes) -> Losses:
        support, query = (self.encode(clips) for clips in single(episodes))
        return self.objective(episodes, support, query, self.relate(support, query))

    def objective(self, episodes: Episodes, support: Clips, query: Clips, related: Related) -> Losses:
        """Mean cross-entropy of the logits, plus ``classify`` times that of the frames' base classes."""
        s, q = single(episodes)
        logits = neutral(self.logits(related, s.present), q.present, s.present.any(2))
        main = cross_entropy(logits, episodes.query_label)
        if self.classifier is None or episodes.multi or not self.settings.classify:
            return Losses(main, {"ce": main})
        extra = frame_loss(self.classifier, (support, query), self.base_rows(s, episodes))
        return Losses(main + self.settings.classify * extra, {"ce": main, "frames": extra})

    def base_rows(self, support: Stream, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """The classifier's rows of supports [B, N, K] and queries [B, Q]; -1 for classes that it does not have."""
        same = episodes.class_id[..., None] == self.base_id
        row = torch.where(same.any(-1), same.int().argmax(-1), -1)  # [B, N]
        of_query = torch.gather(row, 1, episodes.query_label.clamp(min=0))
        return row[..., None].expand_as(support.present), of_query.masked_fill(episodes.query_label < 0, -1)


class FrameRelation(nn.Module):
    """relu(x + attention(LN(x))) over the steps of a clip.

    below_zero: the slope of the ReLU below zero, a buffer: 0 as published, 1 for no ReLU.
    """

    below_zero: Tensor

    def __init__(self, dim: int, heads: int, *, rectify: bool) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("below_zero", torch.tensor(0.0 if rectify else 1.0))
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Related frames [..., T, D] of frames x [..., T, D], of which the steps valid, bool [..., T], count."""
        q, k, v = (_by_head(part, self.heads) for part in self.qkv(self.norm(x)).chunk(3, -1))
        x = x + self.dropout(self.out(_attend(q, k, v, valid, None)))
        return torch.where(x > 0, x, self.below_zero.to(x.dtype) * x)


class ClipRelation(nn.Module):
    """relu(LN(x + attention(x))) over the class entries of a task and one query at a time."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.attention_dropout, self.dropout = nn.Dropout(0.1), nn.Dropout(0.05)

    def forward(self, entry: Tensor, query: Tensor, entry_present: Tensor, query_present: Tensor) -> Tensor:
        """Related tokens [B, Q, S+1, D] of class entries [B, S, D] and, in the last place, of queries [B, Q, D].

        entry_present: bool [B, S]; query_present: bool [B, Q].
        """
        layers = (self.query, self.key, self.value)
        q, k, v = (_by_head(_beside(layer(entry), layer(query)), self.heads) for layer in layers)
        attended = _attend(q, k, v, _beside(entry_present, query_present), self.attention_dropout)
        return torch.relu(self.norm(_beside(entry, query) + self.dropout(self.out(attended))))


def frame_loss(classifier: nn.Module, clips: tuple[Clips, Clips], rows: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the base-class logits over all steps that count.

    clips: supports and queries; rows: their classes' rows of the classifier, -1 for clips that are left out.
    """
    labels = [torch.where(part.valid, row[..., None], -1).flatten() for part, row in zip(clips, rows)]
    return F.cross_entropy(frame_logits(classifier, clips), torch.cat(labels), ignore_index=-1)


def frame_logits(classifier: nn.Module, clips: tuple[Clips, Clips]) -> Tensor:
    """Base-class logits [frames, C] of all frames of the supports, then of the queries."""
    return torch.cat([classifier(part.frames).flatten(0, -2) for part in clips])


def frame_means(support: Clips) -> Clips:
    """Class prototypes [B, N] of supports [B, N, K], frame by frame over the supports that have a frame."""
    valid = support.valid
    count = valid.sum(2).clamp(min=1)[..., None].to(support.frames.dtype)
    weight = valid[..., None].to(support.frames.dtype)
    frames, mapped = ((x * weight).sum(2) / count for x in (support.frames, support.mapped))
    return Clips(frames, mapped, valid.any(2))


def token(clips: Clips) -> Tensor:
    """The mean [..., D] of the frames that count."""
    return Stream(clips.frames, clips.valid.any(-1), clips.valid.sum(-1)).pooled()


def _beside(entry: Tensor, query: Tensor) -> Tensor:
    """Class entries [B, S, ...], the same for every query, with the query behind them: [B, Q, S+1, ...]."""
    each = entry[:, None].expand(-1, query.shape[1], *[-1] * (entry.ndim - 1))
    return torch.cat([each, query[:, :, None]], 2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """x [..., S, D] as [..., heads, S, D / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _attend(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor, dropout: nn.Dropout | None) -> Tensor:
    """Scaled dot-product attention [..., heads, S, d] to what is allowed [..., S], heads side by side again."""
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weight = torch.softmax(
        logits.masked_fill(~allowed[..., None, None, :], torch.finfo(logits.dtype).min), -1
    )
    weight = weight if dropout is None else dropout(weight)
    return (weight @ v).transpose(-2, -3).flatten(-2)
