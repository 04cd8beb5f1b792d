"""STRM: Spatio-temporal Relation Modeling for Few-shot Action Recognition (Thatipelli et al., CVPR 2022).

Two enrichments before TRX: the patches of a frame attend to one another, and the frames of a clip are mixed along time
and then along features. A second classifier on the patch-enriched frames, which compares every query tuple with the
nearest support tuple of a class, serves as an auxiliary loss in training. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import cross_entropy
from ..parts.positions import sinusoid
from ..parts.steps import at_least, resample, unit_gain
from ..parts.tensors import single
from ..settings import Count, NonNegative
from .trx import CrossTransformers, TRXSettings, TupleHead


@dataclass(frozen=True)
class STRMSettings(TRXSettings):
    """STRM's settings: those of TRX and of the two enrichments."""

    patches: Count = 1
    """How many patch vectors a step holds side by side (16 for 4 x 4 maps); 1 for pooled features."""
    auxiliary: NonNegative = 0.1
    """The weight of the second classifier's loss."""
    frozen_auxiliary: bool = False
    """The second classifier's projections are not trained, as in the released code, which kept them in a plain list."""
    start: bool = True
    """The residual branches of both enrichments begin at zero, so that the untrained head is TRX; false: at random."""


class STRM(TupleHead[STRMSettings]):
    Settings = STRMSettings

    def __init__(self, inputs: Inputs, settings: STRMSettings) -> None:
        super().__init__(inputs, settings)
        _, self.steps, held = inputs.one()
        if held % settings.patches:
            raise UsageError(f"patches={settings.patches} does not divide the {held} features of a step.")
        dim = held // settings.patches
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.patches = PatchEnrichment(dim, settings.position, settings.dropout)
        self.frames = FrameEnrichment(self.steps, dim, settings.position, settings.dropout)
        self.tuples = CrossTransformers(dim, settings)
        self.tuples.begin(settings.sharpness, orthogonal=settings.orthogonal)
        self.near = nn.ModuleList(
            NearestTuple(dim, size, settings.dropout) for size in settings.cardinalities
        )
        if settings.frozen_auxiliary:
            self.near.requires_grad_(False)
        if settings.start:
            for branch in (self.patches.mix, self.frames.along_time, self.frames.along_features):
                branch.zero_output()

    def loss(self, episodes: Episodes) -> Losses:
        """Mean cross-entropy of the main logits, plus ``auxiliary`` times that of the nearest-tuple classifier."""
        support, query = (self.enriched(clips) for clips in single(episodes))
        logits = self.factor * self.tuples(self._mixed(support), self._mixed(query))
        main = cross_entropy(neutral(logits, query.present, support.present.any(2)), episodes.query_label)
        second = cross_entropy(self.auxiliary_logits(support, query), episodes.query_label)
        return Losses(main + self.settings.auxiliary * second, {"ce": main, "auxiliary": second})

    def seen(self, clips: Stream) -> Stream:
        """Clips after both enrichments."""
        return self._mixed(self.enriched(clips))

    def enriched(self, clips: Stream) -> Stream:
        """Patch-enriched frames [..., T, D]; every clip brought to the steps that the mixing along time is made for."""
        level = self.levelled(resample(clips, self.steps))
        frames = self.patches(level.x.unflatten(-1, (self.settings.patches, -1)))
        return Stream(frames * level.present[..., None, None].to(frames.dtype), level.present, level.length)

    def _mixed(self, clips: Stream) -> Stream:
        return Stream(self.frames(clips.x), clips.present, clips.length)

    def auxiliary_logits(self, support: Stream, query: Stream) -> Tensor:
        """Mean over cardinalities of minus the mean distance of query tuples to the nearest of a class, [B, Q, N]."""
        s, q = (at_least(clips, max(self.settings.cardinalities)) for clips in (support, query))
        logits = self.settings.scale / self.gain * torch.stack([near(s, q) for near in self.near]).mean(0)
        return neutral(logits, query.present, support.present.any(2))


class Layers(nn.Module):
    """Linear layers with a ReLU between each two."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList([nn.Linear(a, b) for a, b in pairwise(widths)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.linear[:-1]:
            x = torch.relu(layer(x))
        return self.linear[-1](x)

    def zero_output(self) -> None:
        """Makes the last layer put out zeros until it is trained."""
        for weight in self.linear[-1].parameters():
            nn.init.zeros_(weight)


class PatchEnrichment(nn.Module):
    """The patches of a frame attend to one another (unscaled, gain from zero), then a residual MLP; their mean."""

    def __init__(self, dim: int, position: float, dropout: float) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.gain = nn.Parameter(torch.zeros(1))
        self.mix = Layers(dim, dim // 2, dim // 2, dim)
        self.position, self.dropout = position, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Frames [..., D] of patches x [..., patches, D]."""
        x = self.dropout(x + self.position * sinusoid(x.shape[-2], x))
        weight = torch.softmax(self.query(x) @ self.key(x).transpose(-1, -2), -1)
        x = x + self.gain * (weight @ self.value(x))
        return (x + self.mix(x)).mean(-2)


class FrameEnrichment(nn.Module):
    """A residual MLP along time, then one along features, after position codes."""

    def __init__(self, steps: int, dim: int, position: float, dropout: float) -> None:
        super().__init__()
        self.along_time, self.along_features = Layers(steps, steps, steps), Layers(dim, dim, dim)
        self.position, self.dropout = position, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Mixed frames [..., T, D] of frames x [..., T, D]."""
        x = self.dropout(x + self.position * sinusoid(x.shape[-2], x))
        x = x + self.along_time(x.transpose(-1, -2)).transpose(-1, -2)
        return x + self.along_features(x)


class NearestTuple(nn.Module):
    """Minus the mean over query tuples of the distance |e - e'| to the nearest tuple of a class, e = ReLU(W u + b)."""

    def __init__(self, dim: int, size: int, dropout: float) -> None:
        super().__init__()
        self.size = size
        self.out = nn.Linear(size * dim, dim // 2)
        self.dropout = nn.Dropout(dropout)

    def forward(self, support: Stream, query: Stream) -> Tensor:
        """Logits [B, Q, N] of support [B, N, K, T, D] and query [B, Q, T, D]."""
        s, support_valid = self._tuples(support)
        q, query_valid = self._tuples(query)
        distance = _distances(q.flatten(1, 2), s.flatten(1, 3))  # [B, Q*P, N*K*P']
        distance = distance.unflatten(-1, s.shape[1:4]).unflatten(1, q.shape[1:3])
        distance = distance.masked_fill(~support_valid[:, None, None], torch.finfo(distance.dtype).max)
        nearest = distance.flatten(-2).amin(-1)  # [B, Q, P, N]
        nearest = nearest.masked_fill(~support_valid.flatten(2).any(-1)[:, None, None], 0.0)
        counted = query_valid.to(nearest.dtype)
        return -torch.einsum("bqpn,bqp->bqn", nearest, counted) / counted.sum(-1).clamp(min=1)[..., None]

    def _tuples(self, clips: Stream) -> tuple[Tensor, Tensor]:
        """Embedded tuples [*clips, P, D/2], and bool [*clips, P], whether all of a tuple's frames are valid steps."""
        steps = torch.arange(clips.x.shape[-2], device=clips.x.device)
        chosen = torch.combinations(steps, self.size)
        u = self.dropout(clips.x)[..., chosen, :].flatten(-2)
        return torch.relu(self.out(u)), chosen[:, -1] < clips.length[..., None]


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """|a_i - b_j| [B, I, J], with a gradient that stays finite where a and b coincide."""
    square = a.square().sum(-1)[..., :, None] - 2 * a @ b.transpose(-1, -2) + b.square().sum(-1)[..., None, :]
    return square.clamp(min=1e-12).sqrt()
