"""ARN: Few-shot Action Recognition with Permutation-invariant Attention (Zhang et al., ECCV 2020).

A clip's features are pooled into a matrix of channel co-occurrences, which forgets the order of steps; the matrix is
power-normalised, a class averages those of its supports, and a convolutional network judges class and query matrices
side by side. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.losses import relation_mse
from ..parts.maps import max_pool
from ..parts.starts import AlignedStart
from ..parts.steps import scaled, unit_gain
from ..parts.task_norm import TaskNorm
from ..parts.tensors import class_means, single
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, Positive, Settings, Share
from .recipes import RELATION


@dataclass(frozen=True)
class ARNSettings(Settings):
    """ARN's settings."""

    channels: Count = 16
    """The width to which features are projected (paper: the 64 of its 3D network), a multiple of 16; matrices are
    channels x channels."""
    filters: Count = 16
    """The filters of the similarity network (paper: 64)."""
    hidden: Count = 8
    """The width of the similarity network's last layer."""
    sigma: Positive = 100.0
    """The strength of the power normalisation."""
    project: bool = True
    """Learn the projection; false: features of width ``channels`` are taken as they are."""
    attention: bool = True
    """Learn a gate 1 + sigmoid for each step (the paper's attention, in time)."""
    momentum: Share = 1.0
    """The momentum of the running statistics of batch normalisation."""
    start: bool = True
    """Add a training-free similarity of aligned steps (it forgets their order, too) to a relation that begins at zero;
    learned from nothing, few base classes do not reach such a rule."""


class ARN(Head[ARNSettings]):
    Settings = ARNSettings
    recipe = RELATION

    def __init__(self, inputs: Inputs, settings: ARNSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        if settings.channels % 16:
            raise UsageError(
                f"channels={settings.channels} must be a multiple of 16: the matrices are halved four times."
            )
        if not settings.project and dim != settings.channels:
            raise UsageError(f"Without a projection features must be {settings.channels} wide and are {dim}.")
        self.project = nn.Linear(dim, settings.channels) if settings.project else None
        self.gate = nn.Linear(settings.channels, 1) if settings.attention else None
        self.similarity = SimilarityNetwork(settings)
        self.aligned = AlignedStart() if settings.start else None
        self.gain = unit_gain(dim, rescale=settings.project)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: relation scores before their sigmoid."""
        support, query = single(episodes)
        prototype, class_present = self.prototypes(support)
        score = self.similarity(prototype, self.second_order(query))
        if self.aligned is not None:
            pair = self.aligned(query, support)
            mean, _ = class_means(pair.permute(0, 2, 3, 1), support.present)
            score = score + mean.transpose(1, 2)
        return neutral(score, query.present, class_present)

    def shortcuts(self) -> Iterable[Shortcut]:
        """With one shot each pair of clips is scored once."""
        return (FromPairs(head=self),)

    def loss(self, episodes: Episodes) -> Losses:
        """Mean squared error of the scores. The paper's self-supervision (rotations, jigsaws) needs raw video."""
        value = relation_mse(self(episodes), episodes)
        return Losses(value, {"mse": value})

    def prototypes(self, support: Stream) -> tuple[Tensor, Tensor]:
        """Mean matrices [B, N, C, C] of the supports, and which classes have one, bool [B, N]."""
        matrix = self.second_order(support)
        mean, class_present = class_means(matrix.flatten(-2), support.present)
        return mean.unflatten(-1, matrix.shape[-2:]), class_present

    def second_order(self, clips: Stream) -> Tensor:
        """Power-normalised autocorrelation of channels [..., C, C] of clips [..., T, D]; zero where absent.

        G = F F^T / T, divided by its trace, then 2 sigmoid(sigma G) - 1.
        """
        x = scaled(clips, self.gain, self).x
        f = x if self.project is None else self.project(x)
        if self.gate is not None:
            f = f * (1 + self.gate(f).sigmoid())
        f = f * clips.mask()[..., None].to(f.dtype)
        g = f.transpose(-1, -2) @ f / clips.length.clamp(min=1)[..., None, None].to(f.dtype)
        trace = torch.diagonal(g, dim1=-2, dim2=-1).sum(-1)
        g = g / trace.clamp(min=1e-12)[..., None, None]
        return 2 * torch.sigmoid(self.settings.sigma * g) - 1


class SimilarityNetwork(nn.Module):
    """Four convolution blocks, the last three with a skip, each halving the matrices; then two linear layers."""

    def __init__(self, settings: ARNSettings) -> None:
        super().__init__()
        filters = settings.filters
        self.convolutions = [ConvolutionBlock(width, settings) for width in (2, filters, filters, filters)]
        self.blocks = nn.ModuleList(self.convolutions)
        self.hidden = nn.Linear(filters * (settings.channels // 16) ** 2, settings.hidden)
        self.out = nn.Linear(settings.hidden, 1)
        if settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, prototype: Tensor, query: Tensor) -> Tensor:
        """Scores [B, Q, N] of prototype [B, N, C, C] and query [B, Q, C, C]; the class is the first channel."""
        ways, queries = prototype.shape[1], query.shape[1]
        h = self._first(prototype, query) if self.training else self._first_in_halves(prototype, query)
        for block in self.blocks[1:]:
            h = max_pool(h + block(h))
        return self.out(F.relu(self.hidden(h.flatten(2)))).view(-1, queries, ways)

    def _first(self, prototype: Tensor, query: Tensor) -> Tensor:
        """The first block over both matrices of every pair, [B, Q*N, filters, C/2, C/2]."""
        shape = (-1, query.shape[1], prototype.shape[1], -1, -1)
        both = torch.stack([prototype[:, None].expand(shape), query[:, :, None].expand(shape)], 3)
        return max_pool(self.blocks[0](both.flatten(1, 2)))

    def _first_in_halves(self, prototype: Tensor, query: Tensor) -> Tensor:
        """The first block in evaluation, linear before its ReLU: one convolution for each matrix, not for each pair."""
        block = self.convolutions[0]
        scale, shift = block.norm.affine()
        of_class, of_query = (block.conv.weight * scale[:, None, None, None]).split(1, 1)
        bias = None if block.conv.bias is None else block.conv.bias * scale + shift
        left = F.conv2d(prototype.flatten(0, 1)[:, None], of_class, padding=1)
        right = F.conv2d(query.flatten(0, 1)[:, None], of_query, bias, padding=1)
        left, right = left.unflatten(0, prototype.shape[:2]), right.unflatten(0, query.shape[:2])
        return F.relu(max_pool(left[:, None] + right[:, :, None])).flatten(1, 2)


class ConvolutionBlock(nn.Module):
    """A 3 x 3 convolution, batch normalisation inside each task, a ReLU."""

    def __init__(self, width: int, settings: ARNSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, settings.filters, 3, padding=1)
        self.norm = TaskNorm(settings.filters, settings.momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, P, filters, H, W] of x [B, P, width, H, W]."""
        return F.relu(self.norm(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])))
