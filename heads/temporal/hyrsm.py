"""HyRSM: Hybrid Relation Guided Set Matching (Wang et al., CVPR 2022), and HyRSM++ (Wang et al., PR 2024).

The frames of a clip attend to one another, then, for each query by itself, the clips of the task do; two clips are
compared as sets of frames by a bidirectional mean Hausdorff distance. HyRSM++ adds a regulariser that asks frames close
in time to be alike and distant ones to differ. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.losses import cross_entropy
from ..parts.positions import sinusoid
from ..parts.set_matching import hausdorff
from ..parts.tensors import class_means, single
from ..scoring.once_per_clip import KEPT_BYTES, in_parts
from ..settings import Recipe, Settings

FORMS = ("auto", "videos", "prototypes")
RECTIFY = ("auto", "always", "never")


@dataclass(frozen=True)
class HyRSMSettings(Settings):
    """heads: of both attentions (the nearest smaller divisor of D where it does not divide D).

    position_a, position_b: x <- x sqrt(D / a) + b * code.
    form: what the task's clips are: "videos", every support by itself (released for 1 shot); "prototypes", supports
        averaged frame by frame first (released for 2 to 5 shots); "auto", by the number of shots.
    average: the frames' minima are averaged, as in the paper; False sums them, as released (T times as large).
    scale: multiplies the logits. classify: weight of the frames' base-class cross-entropy.
    rescale: multiply unit features by sqrt(D), the scale that the position code was chosen for.
    rectify: the ReLU after the frames' attention: "always", as published, for non-negative features; "never"; "auto":
        never where the base classes' features have negative entries, half of which it would cut away.
    start: both relations begin as the identity: the untrained head is the set matching alone. False: at random.
    """

    heads: int = 8
    position_a: float = 10.0
    position_b: float = 1.0
    form: str = "auto"
    average: bool = True
    scale: float = 10.0
    classify: float = 0.15
    rescale: bool = True
    rectify: str = "auto"
    start: bool = True


class Related(NamedTuple):
    """Task-specific frames: support [B, Q, S, T, D], query [B, Q, T, D]; which steps count [B, S, T], [B, Q, T].

    frames: those of supports and queries before the clips' relation, each with its mask, for the base classifier.
    """

    support: Tensor
    query: Tensor
    shown: Tensor
    asked: Tensor
    frames: tuple[Tensor, Tensor]


class Clips(NamedTuple):
    """Clips [...] before the task's relation: mapped frames [..., T, D] (their part of the blend), token [..., D], the
    mean of the frames, and which steps count, bool [..., T].
    """

    mapped: Tensor
    token: Tensor
    valid: Tensor


class HyRSM(Head):
    settings_class = HyRSMSettings
    recipe = Recipe(
        steps=300, tasks=4, query=5, rate=1e-4, weight_decay=5e-4, evaluate_episodes=200, patience=3
    )
    sequences = True
    all_cores = True

    def __init__(self, inputs: Inputs, settings: HyRSMSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        if own.form not in FORMS:
            raise UsageError(f"form={own.form!r} is not known; use {', '.join(FORMS)}.")
        if own.rectify not in RECTIFY:
            raise UsageError(f"rectify={own.rectify!r} is not known; use {', '.join(RECTIFY)}.")
        _, self.steps, dim = inputs.one()
        heads = next(h for h in range(min(own.heads, dim), 0, -1) if dim % h == 0)
        self.stretch = dim**0.5 if own.rescale else 1.0
        self.within = FrameRelation(dim, heads, own.rectify != "never")
        self.between = ClipRelation(dim, heads)
        self.blend = nn.Linear(2 * dim, dim)
        self.position_dropout = nn.Dropout(0.1)
        self.classifier: nn.Linear | None = None
        self.register_buffer("base_id", torch.zeros(0, dtype=torch.int64))
        if own.start:
            nn.init.zeros_(self.within.out.weight)
            nn.init.zeros_(self.within.out.bias)
            nn.init.zeros_(self.blend.bias)
            self.blend.weight.data = torch.eye(dim, 2 * dim)

    def fit_base(self, base: FeatureBank) -> None:
        """Makes the base classifier of the auxiliary loss, one row a base class; sees whether features are signed."""
        self.set_classes(base.class_id)
        if self.settings.rectify == "auto":
            ((_, table),) = base.tables.items()
            some = table.gather(torch.arange(min(len(base), 256), device=base.device)).x
            self.within.below_zero.fill_(float(bool((some < -1e-6).any())))

    def set_classes(self, class_id: Tensor) -> None:
        """A fresh classifier over the classes ``class_id`` [C]."""
        like = self.blend.weight
        self.base_id = class_id.clone()
        self.classifier = nn.Linear(like.shape[0], len(class_id), device=like.device, dtype=like.dtype)

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        return self._logits(self.relate(support, query), support, query)

    def loss(self, episodes: Episodes) -> Losses:
        """Mean cross-entropy of the logits, plus ``classify`` times that of the frames' base classes."""
        support, query = single(episodes)
        return self._objective(self.relate(support, query), support, query, episodes)

    def _objective(self, related: Related, support: Stream, query: Stream, episodes: Episodes) -> Losses:
        main = cross_entropy(self._logits(related, support, query), episodes.query_label)
        if self.classifier is None or episodes.multi or not self.settings.classify:
            return Losses(main, {"ce": main})
        extra = self.frame_loss(related, support, query, *self.base_rows(support, episodes))
        return Losses(main + self.settings.classify * extra, {"ce": main, "frames": extra})

    def relate(self, support: Stream, query: Stream) -> Related:
        """Frames after both relations."""
        s, q = self._within(support), self._within(query)
        shown, asked = support.mask(), query.mask()
        frames = (s, q)
        if self._by_class(shown.shape[2]):
            s, shown = _frame_means(s, shown)
        else:
            s, shown = s.flatten(1, 2), shown.flatten(1, 2)
        moved = self._related(*(Clips(self._mapped(x), _token(x, m), m) for x, m in ((s, shown), (q, asked))))
        return Related(*moved, shown, asked, frames)

    def _related(self, s: Clips, q: Clips) -> tuple[Tensor, Tensor]:
        """Frames after the clips' relation: of class entries [B, Q, S, T, D] and queries [B, Q, T, D].

        A linear layer of [frame || token]: the frame's part is the same whatever the task.
        """
        tokens = self.between(s.token, q.token, s.valid.any(-1), q.valid.any(-1))
        moved = F.linear(tokens, self.blend.weight.chunk(2, -1)[1], self.blend.bias)
        return s.mapped[:, None] + moved[:, :, :-1, None], q.mapped + moved[:, :, -1:]

    def _mapped(self, frames: Tensor) -> Tensor:
        return F.linear(frames, self.blend.weight.chunk(2, -1)[0])

    def _by_class(self, shots: int) -> bool:
        return self.settings.form == "prototypes" or (self.settings.form == "auto" and shots > 1)

    @torch.no_grad()
    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """The frames' relation of every clip, and their part of the blend, are found once."""
        if 8 * len(bank) * self.steps * self.blend.weight.shape[0] > KEPT_BYTES:
            return None
        streams = list(in_parts(bank))
        frames = torch.cat([self._within(s) for s in streams])
        valid = torch.cat([s.mask() for s in streams])
        clips = Clips(self._mapped(frames), _token(frames, valid), valid)

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = index.support.to(bank.device), index.query.to(bank.device)
            if self._by_class(support.shape[2]):
                mean, shown = _frame_means(frames[support], valid[support])
                mapped, _ = _frame_means(clips.mapped[support], valid[support])
                s = Clips(mapped, _token(mean, shown), shown)
            else:
                s = Clips(*(part[support.flatten(1)] for part in clips))
            q = Clips(*(part[query] for part in clips))
            related = Related(*self._related(s, q), s.valid, q.valid, (frames[:0], frames[:0]))
            there = torch.ones_like(support, dtype=torch.bool)
            return self.matched(related, there, torch.ones_like(query, dtype=torch.bool)).float()

        return Scorer(score)

    def _within(self, stream: Stream) -> Tensor:
        """Position codes, then the frames' relation; zeros beyond a clip's length."""
        own, x = self.settings, stream.x.to(self.blend.weight.dtype) * self.stretch
        scaled = x * (x.shape[-1] / own.position_a) ** 0.5
        placed = scaled + own.position_b * sinusoid(x.shape[-2], x, slow=False)
        mask = stream.mask()
        related = self.within(self.position_dropout(placed), mask)
        return related * mask[..., None].to(x.dtype)

    def _logits(self, related: Related, support: Stream, query: Stream) -> Tensor:
        return self.matched(related, support.present, query.present).to(query.x.dtype)

    def matched(self, related: Related, support: Tensor, query: Tensor) -> Tensor:
        """Logits [B, Q, N]: minus the set distance to each class; present support [B, N, K] and query [B, Q]."""
        s, q = (F.normalize(x.float() if x.dtype == torch.bfloat16 else x, dim=-1) for x in related[:2])
        here, there = related.shown[:, None], related.asked[:, :, None]
        distance = hausdorff(1 - s @ q[:, :, None].transpose(-1, -2), here, there, self.settings.average)
        if not self._by_class(support.shape[2]):
            by_class = distance.unflatten(-1, support.shape[1:]).movedim(1, -1)  # [B, N, K, Q]
            distance = class_means(by_class, support)[0].transpose(1, 2)
        return neutral(-self.settings.scale * distance, query, support.any(2))

    def frame_logits(self, related: Related) -> Tensor:
        """Base-class logits [frames, C] of all support frames, then of all query frames."""
        assert self.classifier is not None
        s, q = related.frames
        return torch.cat([self.classifier(s).flatten(0, -2), self.classifier(q).flatten(0, -2)])

    def base_rows(self, support: Stream, episodes: Episodes) -> tuple[Tensor, Tensor]:
        """Rows of the classifier of supports [B, N, K] and queries [B, Q]; -1 for classes it does not know."""
        same = episodes.class_id[..., None] == self.base_id
        row = torch.where(same.any(-1), same.int().argmax(-1), -1)  # [B, N]
        asked = torch.gather(row, 1, episodes.query_label.clamp(min=0))
        return row[..., None].expand_as(support.present), asked.masked_fill(episodes.query_label < 0, -1)

    def frame_loss(
        self, related: Related, support: Stream, query: Stream, support_row: Tensor, query_row: Tensor
    ) -> Tensor:
        """Mean cross-entropy of the base-class logits over all steps that count; rows as of base_rows."""
        labels = [
            torch.where(stream.mask(), row[..., None], -1).flatten()
            for stream, row in ((support, support_row), (query, query_row))
        ]
        return F.cross_entropy(self.frame_logits(related), torch.cat(labels), ignore_index=-1)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        _, steps, dim = self.inputs.one()
        clips = ways if self.settings.form != "videos" else ways * shots
        return 4 * 2 * queries * clips * steps * (dim + steps)


class FrameRelation(nn.Module):
    """relu(x + attention(LN(x))) over the steps of a clip.

    below_zero: slope of the ReLU below zero, a buffer: 0 as published, 1 for no ReLU.
    """

    below_zero: Tensor

    def __init__(self, dim: int, heads: int, rectify: bool) -> None:
        super().__init__()
        self.heads = heads
        self.register_buffer("below_zero", torch.tensor(0.0 if rectify else 1.0))
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(0.2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [..., T, D], mask bool [..., T]."""
        q, k, v = (_heads(part, self.heads) for part in self.qkv(self.norm(x)).chunk(3, -1))
        attended = _attend(q, k, v, mask, None)
        x = x + self.dropout(self.out(attended))
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

    def forward(self, entry: Tensor, asker: Tensor, shown: Tensor, asked: Tensor) -> Tensor:
        """[B, Q, S+1, D] of class entries [B, S, D], the same for every query, and queries [B, Q, D], which come last.

        shown bool [B, S], asked bool [B, Q].
        """
        x, there = _beside(entry, asker), _beside(shown, asked)
        layers = (self.query, self.key, self.value)
        q, k, v = (_heads(_beside(layer(entry), layer(asker)), self.heads) for layer in layers)
        attended = _attend(q, k, v, there, self.attention_dropout)
        return torch.relu(self.norm(x + self.dropout(self.out(attended))))


def _beside(entry: Tensor, asker: Tensor) -> Tensor:
    """[B, Q, S+1, ...] of [B, S, ...] and [B, Q, ...]."""
    each = entry[:, None].expand(-1, asker.shape[1], *[-1] * (entry.ndim - 1))
    return torch.cat([each, asker[:, :, None]], 2)


def _token(frames: Tensor, valid: Tensor) -> Tensor:
    """The mean of the frames that count, [..., D] of [..., T, D] and bool [..., T]."""
    return Stream(frames, valid.any(-1), valid.sum(-1)).pooled()


def _heads(x: Tensor, heads: int) -> Tensor:
    """[..., S, D] -> [..., heads, S, D / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _attend(q: Tensor, k: Tensor, v: Tensor, there: Tensor, dropout: nn.Dropout | None) -> Tensor:
    """Scaled dot-product attention [..., heads, S, d] to what is there [..., S], heads side by side again."""
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    weight = torch.softmax(logits.masked_fill(~there[..., None, None, :], torch.finfo(logits.dtype).min), -1)
    weight = weight if dropout is None else dropout(weight)
    return (weight @ v).transpose(-2, -3).flatten(-2)


def _frame_means(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Class prototypes frame by frame: x [B, N, K, T, D], mask [B, N, K, T] -> [B, N, T, D] and [B, N, T]."""
    count = mask.sum(2).clamp(min=1)
    return (x * mask[..., None].to(x.dtype)).sum(2) / count[..., None].to(x.dtype), mask.any(2)


@dataclass(frozen=True)
class HyRSMPlusPlusSettings(HyRSMSettings):
    """window: frames at most this far apart shall be alike. sigma: how fast the margin of the others grows with time.

    balance: multiplies the part outside the window. coherence: weight of the regulariser.
    """

    window: int = 1
    sigma: float = 51.0
    balance: float = 10.0
    coherence: float = 0.1


class HyRSMPlusPlus(HyRSM):
    settings_class = HyRSMPlusPlusSettings

    def _objective(self, related: Related, support: Stream, query: Stream, episodes: Episodes) -> Losses:
        losses = super()._objective(related, support, query, episodes)
        extra = self.incoherence(related)
        return Losses(losses.total + self.settings.coherence * extra, {**losses.parts, "coherence": extra})

    def incoherence(self, related: Related) -> Tensor:
        """The regulariser, a mean over support entries plus one over query entries.

        With D_ij = 1 - cos of a clip's frames i, j:  D_ij / ((i-j)^2 + 1) inside the window,
        balance * relu(m_ij - D_ij), m_ij = 1 - exp(-(|i-j| - window)^2 / sigma), outside.
        """
        shown = related.shown[:, None].expand(related.support.shape[:-1])
        return self._incoherence(related.support, shown) + self._incoherence(related.query, related.asked)

    def _incoherence(self, x: Tensor, mask: Tensor) -> Tensor:
        unit = F.normalize(x, dim=-1)
        distance = 1 - unit @ unit.transpose(-1, -2)
        weight, near = self.window_weights(x)
        far = self.settings.balance * torch.relu(weight - distance)
        entry = torch.where(near, distance * weight, far)
        counts = (mask[..., None] & mask[..., None, :]).to(entry.dtype)
        return (entry * counts).sum() / counts.sum().clamp(min=1)

    def window_weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, T]: 1 / ((i-j)^2 + 1) inside the window and the margin outside; which entries are inside."""
        step = torch.arange(x.shape[-2], device=x.device, dtype=x.dtype)
        gap = (step[:, None] - step).abs()
        near = gap <= self.settings.window
        margin = 1 - torch.exp(-((gap - self.settings.window) ** 2) / self.settings.sigma)
        return torch.where(near, 1 / (gap**2 + 1), margin), near
