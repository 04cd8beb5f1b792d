"""TS-DCM: Task-Specific Distance Correlation Matching for Few-Shot Action Recognition (Long et al., arXiv 2025).

A frame is described by how far apart its channels are over its patches, which also catches dependencies that are not
linear (the distance correlation); two frames are as alike as these descriptions are, and a matrix that is generated
from the task weighs the pairs of frames. Where a step has one pooled feature, the steps of a clip take the patches'
place. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream
from ...errors import UsageError
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.context import TaskContext
from ..parts.distances import cosine
from ..parts.steps import resample
from ..settings import CountOrNone, NonNegative, Positive, Recipe, Settings, Share

MOST_CLIPS = 4096  # of the base classes, evenly spaced, that say in which directions steps vary


@dataclass(frozen=True)
class TSDCMSettings(Settings):
    """TS-DCM's settings."""

    patches: CountOrNone = 0
    """The patches of a step whose features are a class token and these, flattened as [1 + patches, C]; 0 for pooled
    features: the steps of a clip are its patches then, and their mean is the class token."""
    channels: CountOrNone = 64
    """The number of channels that are compared: features are mapped to the directions in which the base classes' steps
    vary most; 0 or at least C: the features as they are. A description has channels (channels + 1) / 2 entries."""
    alpha: Share = 0.4
    """The exponent of the squared distances of channels."""
    weigh: bool = True
    """Patches are weighted by their cosine to the class token."""
    epsilon: NonNegative = 0.01
    """What is added to the denominator |x||z| of the frames' cosine."""
    scale: Positive = 10.0
    """The factor of the logits."""
    start: bool = True
    """The task's weights begin as one over the number of pairs of frames, whatever the task; false: at random, without
    that constant, as published. Pooled features have one pair of frames and no such weights."""

    @property
    def adds_weights(self) -> bool:
        return self.patches > 0


class Described(NamedTuple):
    """Frames of clips [...]: vector [..., T, R], their descriptions; token [..., T, C], their class tokens; valid: bool
    [..., T]."""

    vector: Tensor
    token: Tensor
    valid: Tensor


class TSDCM(EncodingHead[TSDCMSettings, Described, Described]):
    Settings = TSDCMSettings
    recipe = Recipe(
        steps=200, tasks=4, query=5, rate=1e-4, optimiser="adamw", weight_decay=0.1, evaluate_episodes=200
    )
    directions: Tensor

    def __init__(self, inputs: Inputs, settings: TSDCMSettings) -> None:
        super().__init__(inputs, settings)
        _, steps, dim = inputs.one()
        if dim % (1 + settings.patches):
            raise UsageError(
                f"Features of {dim} entries are no class token and {settings.patches} patches; give --set patches=N "
                f"such that 1 + N divides {dim}, or 0 for pooled features."
            )
        width = dim // (1 + settings.patches)
        self.frames = steps if settings.patches else 1
        kept = settings.channels if 0 < settings.channels < width else width
        self.register_buffer("directions", torch.eye(width, kept))
        self.generator = nn.Linear(kept, self.frames**2, bias=False) if settings.patches else None
        if self.generator is not None and settings.start:
            nn.init.zeros_(self.generator.weight)

    def fit_base(self, base: FeatureBank) -> None:
        """The directions in which the base classes' steps vary most, where there are more features than channels."""
        width, kept = self.directions.shape
        if kept == width:
            return
        (table,) = base.tables.values()
        some = torch.linspace(0, len(base) - 1, min(len(base), MOST_CLIPS), device=base.device).long()
        clips = table.gather(some)
        steps = clips.x[clips.mask()].unflatten(-1, (-1, width)).flatten(0, -2).double()
        values, vectors = torch.linalg.eigh(torch.cov(steps.T))
        self.directions.copy_(vectors[:, values.argsort(descending=True)[:kept]])

    def encode(self, clips: Stream) -> Described:
        """Descriptions of the frames of clips [..., T, D]."""
        dtype = self.directions.dtype
        work = torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype
        if not self.settings.patches:
            x, valid = clips.x.to(work), clips.mask()[..., None, :]  # one frame, whose patches are the steps
            x = (x * valid.movedim(-2, -1))[..., None, :, :] @ self.directions.to(work)
            token = x.sum(-2) / valid.sum(-1).clamp(min=1)[..., None]
            return Described(self.described(x, token, valid), token, valid.any(-1))
        clips = resample(clips, self.frames)
        parts = clips.x.to(work).unflatten(-1, (1 + self.settings.patches, -1)) @ self.directions.to(work)
        token, x = parts[..., 0, :], parts[..., 1:, :]
        counted = torch.ones_like(x[..., 0], dtype=torch.bool)
        return Described(self.described(x, token, counted), token, clips.mask())

    def described(self, x: Tensor, token: Tensor, valid: Tensor) -> Tensor:
        """Descriptions [..., T, R] of patches x [..., T, P, C], of which bool [..., T, P] count; token [..., T, C].

        The squared distances of channels over the patches, to a power, doubly centred; its upper triangle.
        """
        if self.settings.weigh:
            x = x * F.cosine_similarity(token[..., None, :], x, dim=-1)[..., None]
        x = x * valid[..., None].to(x.dtype)
        gram = x.transpose(-1, -2) @ x  # [..., T, C, C]
        square = gram.diagonal(dim1=-2, dim2=-1)
        count = valid.sum(-1).clamp(min=1)[..., None, None]
        distance = (square[..., :, None] + square[..., None, :] - 2 * gram) / (2 * count)
        powered = (distance.clamp(min=0) + 1e-5) ** self.settings.alpha
        mean = powered.mean(-1, keepdim=True)
        centred = powered - mean - mean.transpose(-1, -2) + mean.mean(-2, keepdim=True)
        row, column = torch.triu_indices(*centred.shape[-2:], device=x.device)
        return centred[..., row, column]

    def compare(self, support: Described, query: Described, context: TaskContext) -> Tensor:
        classes = frame_means(support.vector, support.valid)  # [B, N, T, R]
        product = cosine(query.vector.flatten(1, 2), classes.flatten(1, 2), self.settings.epsilon)
        match = (
            product.unflatten(1, query.vector.shape[1:3]).unflatten(-1, classes.shape[1:3]).transpose(2, 3)
        )
        seen = (query.valid[:, :, None, :, None] & support.valid.any(2)[:, None, :, None]).to(match.dtype)
        weight = self.weights(support, query).to(match.dtype).unflatten(-1, (self.frames, -1))
        return self.settings.scale * torch.einsum("bqnij,bqij->bqn", match * seen, weight)

    def weights(self, support: Described, query: Described) -> Tensor:
        """The weights [B, Q, T*T] of the pairs of frames, from the mean tokens of all supports and of the query.

        Pooled clips have one frame each: a weight would only rescale all logits of a query, and is one.
        """
        if self.generator is None:
            return torch.ones_like(query.token[..., 0])
        mean = token_mean(support.token.flatten(1, -2), support.valid.flatten(1))
        own = token_mean(query.token, query.valid)
        made = self.generator((mean[:, None] + own).to(self.generator.weight.dtype))
        return made + 1 / self.frames**2 if self.settings.start else made


def frame_means(x: Tensor, valid: Tensor) -> Tensor:
    """The means [B, N, T, R] of x [B, N, K, T, R] over the shots that have the frame, bool [B, N, K, T]."""
    weight = valid[..., None].to(x.dtype)
    return (x * weight).sum(2) / weight.sum(2).clamp(min=1)


def token_mean(x: Tensor, valid: Tensor) -> Tensor:
    """The means [..., C] of x [..., M, C] over the entries that count, bool [..., M]."""
    weight = valid[..., None].to(x.dtype)
    return (x * weight).sum(-2) / weight.sum(-2).clamp(min=1)
