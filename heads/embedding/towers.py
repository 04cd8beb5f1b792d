"""Towers: what takes the clips of one modality to a vector, by the mean of their steps or by a transformer over them.

In shapes T is the number of steps, D the width of features and E that of the vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ...episodes.batch import Stream
from ..parts.positions import sinusoid
from ..parts.token_block import TokenBlock
from .common_settings import CommonSpaceSettings


class PooledTower(nn.Sequential):
    """A map of vectors [..., D], linear or with one hidden layer; ``last`` is the part that towers may share."""

    def __init__(self, dim: int, settings: CommonSpaceSettings, last: nn.Module | None = None) -> None:
        if last is not None:
            first = nn.Linear(dim, settings.hidden or settings.dim)
            super().__init__(
                nn.Dropout(settings.dropout), first, nn.ReLU(), nn.Dropout(settings.dropout), last
            )
        elif not settings.hidden:
            super().__init__(nn.Dropout(settings.dropout), nn.Linear(dim, settings.dim))
        else:
            super().__init__(
                nn.Dropout(settings.dropout),
                nn.Linear(dim, settings.hidden),
                nn.ReLU(),
                nn.Dropout(settings.dropout),
                nn.Linear(settings.hidden, settings.dim),
            )

    def project(self, clips: Stream) -> Tensor:
        """The vectors [..., E] of clips, whose unit features are brought to entries near one, as maps want."""
        x = clips.pooled().to(_dtype(self))
        point: Tensor = self(x * x.shape[-1] ** 0.5)
        return point


class StepTower(nn.Module):
    """A linear map of every step, codes of positions, transformer blocks, and the mean over the valid steps."""

    def __init__(self, dim: int, steps: int, settings: CommonSpaceSettings, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.drop, self.enter = nn.Dropout(settings.dropout), nn.Linear(dim, settings.dim)
        learned = settings.positions == "learned"
        self.position = nn.Parameter(0.02 * torch.randn(steps, settings.dim)) if learned else None
        self.blocks = blocks
        hides = settings.add_masked > 0
        self.hidden = nn.Parameter(torch.zeros(settings.dim)) if hides else None
        self.leave = nn.Linear(settings.dim, dim) if hides else None

    def project(self, clips: Stream) -> Tensor:
        """The vectors [..., E] of clips."""
        mask = clips.mask()[..., None]
        steps = self.read(self.enter(self.drop(self._scaled(clips))), clips) * mask
        return steps.sum(-2) / clips.length.clamp(min=1)[..., None].to(steps.dtype)

    def rebuilt(self, clips: Stream, masked: Tensor) -> tuple[Tensor, Tensor]:
        """The steps [M, T, D] that are said where ``masked``, bool [M, T], and the true ones."""
        assert self.hidden is not None, "the tower was built to rebuild masked steps"
        assert self.leave is not None, "the tower was built to rebuild masked steps"
        true = self._scaled(clips)
        steps = torch.where(masked[..., None], self.hidden, self.enter(true))
        return self.leave(self.read(steps, clips)), true

    def read(self, steps: Tensor, clips: Stream) -> Tensor:
        """The steps [..., T, E] after positions and blocks."""
        count = steps.shape[-2]
        if self.position is None:
            steps = steps + sinusoid(count, steps)
        else:
            place = torch.arange(count, device=steps.device).clamp(max=len(self.position) - 1)
            steps = steps + self.position[place]
        for block in self.blocks:
            steps = block(steps, clips.mask())
        return steps

    def _scaled(self, clips: Stream) -> Tensor:
        return clips.x.to(_dtype(self)) * clips.x.shape[-1] ** 0.5


class DeeperHead(nn.Module):
    """The layers behind the space, as in SimCLRv2 (Chen et al., NeurIPS 2020): linear maps with ReLU in between."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))

    def forward(self, x: Tensor, layer: int) -> Tensor:
        """The vectors [..., E] after ``layer`` layers; the last one has no ReLU behind it."""
        for number, each in enumerate(self.layers[:layer], 1):
            x = each(x)
            x = x.relu() if number < len(self.layers) else x
        return x


def blocks_of(settings: CommonSpaceSettings) -> nn.ModuleList:
    """The transformer's blocks, which begin as the identity."""
    return nn.ModuleList(
        TokenBlock(settings.dim, settings.attention_heads, 0, 4 * settings.dim, settings.dropout)
        for _ in range(settings.layers)
    )


@contextmanager
def held(module: nn.Module | None) -> Iterator[None]:
    """What is computed within gives a module's weights no gradient."""
    weights = [] if module is None else [weight for weight in module.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def _dtype(module: nn.Module) -> Any:
    """The dtype of a module's weights."""
    return next(module.parameters()).dtype
