"""MTFAN: Motion-modulated Temporal Fragment Alignment Network for Few-Shot Action Recognition (Wu et al., CVPR 2022).

What moves in a task's supports decides which channels are amplified (motion modulation). Attention gathers each clip's
frames into a few segments, and clips are compared frame to frame, segment to segment and segment to frame. No code is
public: the equations are our reconstruction, see docs/methods/mtfan.md. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.set_matching import hausdorff
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..settings import Recipe, Settings

LEVELS = ("ff", "ss", "sf")


@dataclass(frozen=True)
class MTFANSettings(Settings):
    """modulate: the motion modulator on or off. levels: of alignment that are added up: frames with frames ("ff"),
    segments with segments ("ss"), segments with frames ("sf").

    segments: how many a clip has. width: of motion embeddings and of the segment attention.
    scale: multiplies the distance. rescale: multiply unit features by sqrt(D).
    start: the modulator begins uniform; False: at random.
    """

    modulate: bool = True
    levels: tuple[str, ...] = LEVELS
    segments: int = 3
    width: int = 64
    scale: float = 5.0
    rescale: bool = True
    start: bool = True


class Fragments(NamedTuple):
    """Clips [...]: frames [..., T, D], valid bool [..., T], segments [..., S, D]."""

    frames: Tensor
    valid: Tensor
    segments: Tensor


class MTFAN(Head):
    settings_class = MTFANSettings
    recipe = Recipe(
        steps=200,
        tasks=4,
        query=5,
        rate=1e-4,
        weight_decay=5e-4,
        mix=0.5,
        evaluate_every=25,
        evaluate_episodes=100,
    )
    sequences = True

    def __init__(self, inputs: Inputs, settings: MTFANSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        if not own.levels or set(own.levels) - set(LEVELS):
            raise UsageError(
                f"levels={','.join(own.levels)} is not known; use one or more of {', '.join(LEVELS)}."
            )
        if own.segments < 1:
            raise UsageError(f"segments={own.segments}; a clip needs at least one.")
        _, self.steps, dim = inputs.one()
        self.gain = math.sqrt(dim) if own.rescale else 1.0
        self.motion = nn.Sequential(nn.Linear(dim, own.width), nn.ReLU(), nn.Linear(own.width, own.width))
        self.modulator = nn.Linear(own.width + dim, dim)
        if own.start:
            nn.init.zeros_(self.modulator.weight)
            nn.init.zeros_(self.modulator.bias)
        self.key = nn.Linear(dim, own.width, bias=False)
        self.wanted = nn.Parameter(torch.randn(own.segments, own.width) / math.sqrt(own.width))

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = (self._read(s) for s in single(episodes))
        task = self.task_motion(support) if self.settings.modulate else None
        classes = class_fragments(self.fragments(support, task))
        distance = self.distance(self.fragments(query, task), classes)
        return neutral(-self.settings.scale * distance, query.present, support.present.any(2))

    def task_motion(self, support: Stream) -> Tensor:
        """M [B, W]: the mean motion embedding over all supports [B, N, K, T, D] and moments."""
        change, moving = motions(support)
        weight = moving.to(change.dtype)[..., None]
        total = (self.motion(change) * weight).sum((1, 2, 3))
        return total / weight.sum((1, 2, 3)).clamp(min=1)

    def fragments(self, clips: Stream, task: Tensor | None) -> Fragments:
        """Modulated frames f_t (1 + sigmoid(W [M || m_t])) and segments of clips [B, ..., T, D]; task [B, W]."""
        frames, valid = clips.x, clips.mask()
        if task is not None:
            change, _ = motions(clips)
            context = task.view(len(task), *[1] * (frames.ndim - 2), -1).expand(*frames.shape[:-1], -1)
            frames = frames * (1 + torch.sigmoid(self.modulator(torch.cat([context, change], -1))))
        return Fragments(frames, valid, self._segments(frames, valid))

    def distance(self, query: Fragments, classes: Fragments) -> Tensor:
        """The levels' distances added up, [B, Q, N]; each is a mean over nearest neighbours both ways."""
        levels = self.settings.levels
        here, there = query.valid[:, :, None], classes.valid[:, None]
        whole = torch.ones_like(query.valid[:, :1, None, :1]).expand(-1, -1, -1, self.settings.segments)
        total = query.frames.new_zeros(())
        if "ff" in levels:
            total = total + hausdorff(gaps(query.frames, classes.frames), here, there)
        if "ss" in levels:
            total = total + hausdorff(gaps(query.segments, classes.segments), whole, whole)
        if "sf" in levels:
            out = nearest(gaps(query.segments, classes.frames), there).mean(-1)
            back = nearest(gaps(query.frames, classes.segments).transpose(-1, -2), here).mean(-1)
            total = total + out + back
        return total

    def _segments(self, frames: Tensor, valid: Tensor) -> Tensor:
        """g_k = sum_t a_kt f_t with a_k = softmax over the valid steps of q_k . W f_t; [..., S, D]."""
        affinity = self.wanted @ self.key(frames).transpose(-1, -2) / math.sqrt(self.wanted.shape[-1])
        affinity = affinity.masked_fill(~valid[..., None, :], torch.finfo(affinity.dtype).min)
        return torch.softmax(affinity, -1) @ frames

    def _read(self, stream: Stream) -> Stream:
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.gain
        return Stream(x, stream.present, stream.length)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """Frames with their motion and context, and the frame pairs."""
        clips = ways * shots + queries
        return 4 * clips * self.steps * 5 * self.inputs.one()[2] + 24 * queries * ways * self.steps**2


def motions(clips: Stream) -> tuple[Tensor, Tensor]:
    """m_t = f_{t+1} - f_t [..., T, D], 0 at a clip's last step and beyond; and which steps have one, bool [..., T]."""
    valid = clips.mask()
    moving = torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], -1)
    onward = torch.cat([clips.x[..., 1:, :], torch.zeros_like(clips.x[..., :1, :])], -2)
    return (onward - clips.x) * moving[..., None].to(clips.x.dtype), moving


def class_fragments(shots: Fragments) -> Fragments:
    """Means over the shots [B, N, K] that are there, step by step and segment by segment."""
    weight = shots.valid.to(shots.frames.dtype)[..., None]
    frames = (shots.frames * weight).sum(2) / weight.sum(2).clamp(min=1)
    shown = shots.valid.any(-1).to(weight.dtype)[..., None, None]
    segments = (shots.segments * shown).sum(2) / shown.sum(2).clamp(min=1)
    return Fragments(frames, shots.valid.any(2), segments)


def gaps(query: Tensor, classes: Tensor) -> Tensor:
    """One minus the cosines [B, Q, N, I, J] of query [B, Q, I, D] and classes [B, N, J, D]."""
    flat = 1 - cosine(query.flatten(1, 2), classes.flatten(1, 2))
    return flat.unflatten(1, query.shape[1:3]).unflatten(-1, classes.shape[1:3]).transpose(2, 3)


def nearest(gap: Tensor, valid: Tensor) -> Tensor:
    """The least of gap [..., I, J] over the valid J, [..., I]; 0 where there is none."""
    least = gap.masked_fill(~valid[..., None, :], torch.finfo(gap.dtype).max).amin(-1)
    return torch.where(valid.any(-1, keepdim=True), least, torch.zeros_like(least))
