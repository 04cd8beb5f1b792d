"""ARN: Few-shot Action Recognition with Permutation-invariant Attention (Zhang et al., ECCV 2020).

A clip's features are pooled into a matrix of channel co-occurrences, which forgets the order of steps; the matrix is
power-normalised, a class averages those of its supports, and a convolutional network judges class and query matrices
side by side. Inductive.
"""

from __future__ import annotations

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
from ..parts.task import work_dtype
from ..parts.task_norm import TaskNorm
from ..parts.tensors import class_means, single
from ..settings import Recipe, Settings


@dataclass(frozen=True)
class ARNSettings(Settings):
    """channels: features are projected to so many (paper: the 64 of its 3D network); matrices are channels^2.

    filters: of the similarity network (paper 64); hidden: of its last layer. sigma: of the power normalisation.
    project: learn the projection; False takes features of width ``channels`` as they are.
    attention: a learned gate 1 + sigmoid a step (the paper's attention, in time). momentum: of running statistics.
    start: add a training-free similarity of aligned steps (it forgets their order, too) to a relation that begins at
    zero; learned from nothing, few base classes do not reach such a rule.
    """

    channels: int = 16
    filters: int = 16
    hidden: int = 8
    sigma: float = 100.0
    project: bool = True
    attention: bool = True
    momentum: float = 1.0
    start: bool = True


class ARN(Head):
    settings_class = ARNSettings
    recipe = Recipe(steps=200, tasks=4, query=5, clip_norm=1.0, evaluate_episodes=200, patience=4, mix=0.5)
    sequences = True
    pairwise = True

    def __init__(self, inputs: Inputs, settings: ARNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        given, dim = self.settings, inputs.one()[2]
        if given.channels < 16 or given.channels % 16:
            raise UsageError(
                f"channels={given.channels} must be a multiple of 16: the matrices are halved four times."
            )
        if not given.project and dim != given.channels:
            raise UsageError(f"Without a projection features must be {given.channels} wide and are {dim}.")
        self.project = nn.Linear(dim, given.channels) if given.project else None
        self.gate = nn.Linear(given.channels, 1) if given.attention else None
        self.similarity = SimilarityNetwork(given)
        self.aligned = AlignedStart() if given.start else None
        self.stretch = dim**0.5 if given.project else 1.0  # unit features have entries of about 1 / sqrt(D)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: relation scores before their sigmoid."""
        support, query = single(episodes)
        prototype, known = self.prototypes(support)
        score = self.similarity(prototype, self.second_order(query))
        if self.aligned is not None:
            pair = self.aligned(query, support)
            mean, _ = class_means(pair.permute(0, 2, 3, 1), support.present)
            score = score + mean.transpose(1, 2)
        return neutral(score, query.present, known)

    def loss(self, episodes: Episodes) -> Losses:
        """Mean squared error of the scores. The paper's self-supervision (rotations, jigsaws) needs raw video."""
        value = relation_mse(self(episodes), episodes)
        return Losses(value, {"mse": value})

    def prototypes(self, support: Stream) -> tuple[Tensor, Tensor]:
        """Mean matrices of the supports [B, N, C, C] and which classes have one [B, N]."""
        matrix = self.second_order(support)
        mean, known = class_means(matrix.flatten(-2), support.present)
        return mean.unflatten(-1, matrix.shape[-2:]), known

    def second_order(self, stream: Stream) -> Tensor:
        """Power-normalised autocorrelation of channels [..., C, C] of a stream [..., T, D]; zero where absent.

        G = F F^T / T, divided by its trace, then 2 sigmoid(sigma G) - 1.
        """
        x = stream.x.to(work_dtype(stream.x.dtype, self)) * self.stretch
        f = x if self.project is None else self.project(x)
        if self.gate is not None:
            f = f * (1 + self.gate(f).sigmoid())
        f = f * stream.mask()[..., None].to(f.dtype)
        g = f.transpose(-1, -2) @ f / stream.length.clamp(min=1)[..., None, None].to(f.dtype)
        trace = torch.diagonal(g, dim1=-2, dim2=-1).sum(-1)
        g = g / trace.clamp(min=1e-12)[..., None, None]
        return 2 * torch.sigmoid(self.settings.sigma * g) - 1

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return 4 * ways * queries * self.settings.channels**2 * (2 * self.settings.filters + 2)


class SimilarityNetwork(nn.Module):
    """Four convolution blocks, the last three with a skip, each halving the matrices; then two linear layers."""

    def __init__(self, given: ARNSettings) -> None:
        super().__init__()
        widths = (2, given.filters, given.filters, given.filters)
        self.blocks = nn.ModuleList(ConvolutionBlock(width, given) for width in widths)
        self.hidden = nn.Linear(given.filters * (given.channels // 16) ** 2, given.hidden)
        self.out = nn.Linear(given.hidden, 1)
        if given.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, prototype: Tensor, query: Tensor) -> Tensor:
        """prototype [B, N, C, C], query [B, Q, C, C] -> [B, Q, N]; the class is the first channel."""
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
        """The same in evaluation, where the block is linear before its ReLU: one convolution a matrix, not a pair."""
        block = self.blocks[0]
        assert isinstance(block, ConvolutionBlock)
        scale, shift = block.norm.affine()
        of_class, of_query = (block.conv.weight * scale[:, None, None, None]).split(1, 1)
        bias = None if block.conv.bias is None else block.conv.bias * scale + shift
        left = F.conv2d(prototype.flatten(0, 1)[:, None], of_class, padding=1)
        right = F.conv2d(query.flatten(0, 1)[:, None], of_query, bias, padding=1)
        left, right = left.unflatten(0, prototype.shape[:2]), right.unflatten(0, query.shape[:2])
        return F.relu(max_pool(left[:, None] + right[:, :, None])).flatten(1, 2)


class ConvolutionBlock(nn.Module):
    """conv3x3, batch norm a task, relu."""

    def __init__(self, width: int, given: ARNSettings) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, given.filters, 3, padding=1)
        self.norm = TaskNorm(given.filters, given.momentum)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])))
