"""Random views of frames: one crop, mirroring and colour for all frames of a view, as SimCLR has them for pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .request import TuneRecipe

_GREY = 0.2  # the share of grey views
_LUMA = (0.299, 0.587, 0.114)  # the weights of red, green and blue in grey (ITU-R BT.601)


def views_of(frames: Tensor, recipe: TuneRecipe, chance: torch.Generator) -> Tensor:
    """A random view of each clip: float32 from 0 to 255, of the shape of ``frames``, uint8 [G, ..., S, S, 3].

    chance: a generator on the CPU, so that views do not depend on the device.
    """
    count = len(frames)
    draws = torch.rand(count, 7, generator=chance).to(frames.device)
    x = frames.float().flatten(1, -4).movedim(-1, -3)  # [G, all frames, 3, S, S]
    if recipe.crop < 1 or recipe.flip:
        x = _cropped(x, draws, recipe)
    if recipe.colour:
        x = _coloured(x, draws, recipe.colour)
    return x.movedim(-3, -1).reshape(frames.shape)


def _cropped(x: Tensor, draws: Tensor, recipe: TuneRecipe) -> Tensor:
    """Each view's own part of the frames, scaled to their size, and mirrored in half of the views."""
    side = recipe.crop + (1 - recipe.crop) * draws[:, 0]
    across, down = ((1 - side) * (2 * draws[:, i] - 1) for i in (1, 2))
    mirrored = torch.where((draws[:, 3] < 0.5) & recipe.flip, -1.0, 1.0)
    zero = torch.zeros_like(side)
    place = torch.stack([side * mirrored, zero, across, zero, side, down], 1).view(-1, 2, 3)
    flat = x.flatten(0, 1)
    grid = F.affine_grid(place.repeat_interleave(x.shape[1], 0), list(flat.shape), align_corners=False)
    return F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view(x.shape)


def _coloured(x: Tensor, draws: Tensor, strength: float) -> Tensor:
    """Each view with a brightness and a contrast of its own, and some of them grey."""
    bright, contrast = (1 + strength * (2 * draws[:, i, None, None, None, None] - 1) for i in (4, 5))
    luma = (x * torch.tensor(_LUMA, device=x.device)[:, None, None]).sum(-3, keepdim=True)
    grey = draws[:, 6, None, None, None, None] < _GREY
    x = torch.where(grey, luma, x)
    mean = luma.mean((1, 2, 3, 4), keepdim=True)
    return (((x - mean) * contrast + mean) * bright).clamp(0, 255)
