"""MTFAN: Motion-modulated Temporal Fragment Alignment Network for Few-Shot Action Recognition (Wu et al., CVPR 2022).

What moves in a task's supports decides which channels are amplified (motion modulation). Attention gathers each clip's
frames into a few segments, and clips are compared frame to frame, segment to segment and segment to frame. No code is
public: the equations are our reconstruction, see docs/methods/mtfan.md. Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ...errors import UsageError
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.context import TaskContext
from ..parts.distances import cosine
from ..parts.set_matching import hausdorff, nearest_distance
from ..parts.steps import scaled, unit_gain
from ..settings import Count, Positive, Settings
from .recipes import ATTENTION

Level = Literal["ff", "ss", "sf"]


@dataclass(frozen=True)
class MTFANSettings(Settings):
    """MTFAN's settings."""

    modulate: bool = True
    """What moves in the task's supports modulates the channels of all frames."""
    levels: tuple[Level, ...] = ("ff", "ss", "sf")
    """The levels of alignment that are added up: frames with frames (ff), segments with segments (ss), segments with
    frames (sf)."""
    segments: Count = 3
    """The segments of a clip."""
    width: Count = 64
    """The width of motion embeddings and of the segment attention."""
    scale: Positive = 5.0
    """The factor of the distance."""
    rescale: bool = True
    """Multiply unit features by sqrt(D)."""
    start: bool = True
    """The modulator begins uniform; false: at random."""


class Moving(NamedTuple):
    """Clips [...] before they are modulated.

    frames [..., T, D]; valid bool [..., T]; gate [..., T, D]: what each frame's motion adds to its modulation; motion
    [..., W] and moments [...]: the sum of the motion embeddings, and of how many. Without modulation the last three are
    None.
    """

    frames: Tensor
    valid: Tensor
    gate: Tensor | None
    motion: Tensor | None
    moments: Tensor | None


class Fragments(NamedTuple):
    """Clips [...]: frames [..., T, D], valid bool [..., T], segments [..., S, D]."""

    frames: Tensor
    valid: Tensor
    segments: Tensor


class MTFAN(EncodingHead[MTFANSettings, Moving, Moving]):
    Settings = MTFANSettings
    recipe = replace(ATTENTION, steps=200, evaluate_episodes=100)

    def __init__(self, inputs: Inputs, settings: MTFANSettings) -> None:
        super().__init__(inputs, settings)
        if not settings.levels:
            raise UsageError("levels must name at least one level of alignment.")
        dim, width = inputs.one()[2], settings.width
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.motion = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Linear(width, width))
        self.modulator = nn.Linear(width + dim, dim)
        if settings.start:
            nn.init.zeros_(self.modulator.weight)
            nn.init.zeros_(self.modulator.bias)
        self.key = nn.Linear(dim, width, bias=False)
        self.wanted = nn.Parameter(torch.randn(settings.segments, width) / math.sqrt(width))

    def encode(self, clips: Stream) -> Moving:
        clips = scaled(clips, self.gain, self)
        if not self.settings.modulate:
            return Moving(clips.x, clips.mask(), None, None, None)
        change, moving = motions(clips)
        weight = moving.to(change.dtype)[..., None]
        return Moving(
            frames=clips.x,
            valid=clips.mask(),
            gate=F.linear(change, self.modulator.weight[:, self.settings.width :]),
            motion=(self.motion(change) * weight).sum(-2),
            moments=weight.sum((-2, -1)),
        )

    def compare(self, support: Moving, query: Moving, context: TaskContext) -> Tensor:
        task = self.task_gate(support)
        classes = class_fragments(self.fragments(support, task))
        return -self.settings.scale * self.distance(self.fragments(query, task), classes)

    def task_gate(self, support: Moving) -> Tensor | None:
        """What the motion M of the task adds to the modulation of all its frames, [B, D]; None without modulation.

        M [B, W] is the mean motion embedding over all supports [B, N, K] and moments.
        """
        if support.motion is None or support.moments is None:
            return None
        mean = support.motion.sum((1, 2)) / support.moments.sum((1, 2)).clamp(min=1)[:, None]
        return F.linear(mean, self.modulator.weight[:, : self.settings.width], self.modulator.bias)

    def fragments(self, clips: Moving, task: Tensor | None) -> Fragments:
        """Modulated frames f_t (1 + sigmoid(W [M || m_t])) and segments of clips [B, ...].

        task: the part of M in the sum, [B, D], as :meth:`task_gate` finds it; that of m_t is the clips' own.
        """
        frames = clips.frames
        if task is not None and clips.gate is not None:
            context = task.view(len(task), *[1] * (frames.ndim - 2), -1)
            frames = frames * (1 + torch.sigmoid(context + clips.gate))
        return Fragments(frames, clips.valid, self._segments(frames, clips.valid))

    def distance(self, query: Fragments, classes: Fragments) -> Tensor:
        """The levels' distances added up, [B, Q, N]; each is a mean over nearest neighbours both ways."""
        levels = self.settings.levels
        query_valid, class_valid = query.valid[:, :, None], classes.valid[:, None]
        whole = torch.ones_like(query.valid[:, :1, None, :1]).expand(-1, -1, -1, self.settings.segments)
        total = query.frames.new_zeros(())
        if "ff" in levels:
            total = total + hausdorff(gaps(query.frames, classes.frames), query_valid, class_valid)
        if "ss" in levels:
            total = total + hausdorff(gaps(query.segments, classes.segments), whole, whole)
        if "sf" in levels:
            out = nearest_distance(gaps(query.segments, classes.frames), class_valid)
            back = nearest_distance(gaps(query.frames, classes.segments).transpose(-1, -2), query_valid)
            total = total + out.mean(-1) + back.mean(-1)
        return total

    def _segments(self, frames: Tensor, valid: Tensor) -> Tensor:
        """g_k = sum_t a_kt f_t with a_k = softmax over the valid steps of q_k . W f_t; [..., S, D]."""
        affinity = self.wanted @ self.key(frames).transpose(-1, -2) / math.sqrt(self.wanted.shape[-1])
        affinity = affinity.masked_fill(~valid[..., None, :], torch.finfo(affinity.dtype).min)
        return torch.softmax(affinity, -1) @ frames


def motions(clips: Stream) -> tuple[Tensor, Tensor]:
    """m_t = f_{t+1} - f_t [..., T, D], 0 at a clip's last step and beyond; and which steps have one, bool [..., T]."""
    valid = clips.mask()
    moving = torch.cat([valid[..., 1:], torch.zeros_like(valid[..., :1])], -1)
    onward = torch.cat([clips.x[..., 1:, :], torch.zeros_like(clips.x[..., :1, :])], -2)
    return (onward - clips.x) * moving[..., None].to(clips.x.dtype), moving


def class_fragments(shots: Fragments) -> Fragments:
    """Means over the present shots [B, N, K], step by step and segment by segment."""
    weight = shots.valid.to(shots.frames.dtype)[..., None]
    frames = (shots.frames * weight).sum(2) / weight.sum(2).clamp(min=1)
    present = shots.valid.any(-1).to(weight.dtype)[..., None, None]
    segments = (shots.segments * present).sum(2) / present.sum(2).clamp(min=1)
    return Fragments(frames, shots.valid.any(2), segments)


def gaps(query: Tensor, classes: Tensor) -> Tensor:
    """One minus the cosines [B, Q, N, I, J] of query [B, Q, I, D] and classes [B, N, J, D]."""
    flat = 1 - cosine(query.flatten(1, 2), classes.flatten(1, 2))
    return flat.unflatten(1, query.shape[1:3]).unflatten(-1, classes.shape[1:3]).transpose(2, 3)
