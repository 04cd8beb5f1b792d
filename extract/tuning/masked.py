"""Masked autoencoding (He et al., Masked Autoencoders Are Scalable Vision Learners, CVPR 2022) in two forms.

A vision transformer of timm sees a share of a picture's patches, and a small decoder says the pixels of the others. Any
other network sees a share of a clip's steps, and a small transformer says the features of the others, as the network
gave them before it was tuned.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..encoders.tunable import Tunable
from .batches import Batch
from .objectives import Embed, Losses, Objective, embedded, unit_entries

_WIDTH, _HEADS, _LAYERS = 128, 4, 2


class MaskedPatches(Objective):
    """The pixels of hidden patches, brought to mean 0 and deviation 1 in each patch, said from the visible ones.

    size: the side of a frame in pixels.
    """

    def __init__(self, tower: Tunable, size: int, share: float, losses: Losses) -> None:
        super().__init__()
        model: Any = tower.module
        self.side = int(model.patch_embed.patch_size[0])
        self.shown = shown_of((size // self.side) ** 2, share)
        self.error = losses.masked_error
        self.filling = _Filling(int(model.embed_dim), (size // self.side) ** 2, 3 * self.side**2)

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        pictures = tower.enter(batch.frames.flatten(0, 2))  # [N, 3, S, S]
        true = _unit_patches(pictures, self.side)
        order = torch.rand(true.shape[:2]).argsort(1).to(true.device)
        visible = order[:, : self.shown]
        said = self.filling(_tokens(tower.module, pictures, visible), visible)
        return self.error(said, true, _hidden(order, self.shown))


class MaskedSteps(Objective):
    """The features of hidden steps, as the network gave them before it was tuned, said from the visible steps.

    before: those features of all clips [n, T, D].
    """

    whole = True

    def __init__(self, before: Tensor, share: float, losses: Losses) -> None:
        super().__init__()
        self.before, self.error = unit_entries(before), losses.masked_error
        _, steps, width = before.shape
        self.shown = shown_of(steps, share)
        self.filling = _Filling(width, steps, width)

    def forward(self, tower: Tunable, embed: Embed, batch: Batch) -> Tensor:
        true = self.before[batch.rows].to(tower.device)
        order = torch.rand(true.shape[:2]).argsort(1).to(tower.device)
        visible = order[:, : self.shown]
        clips = torch.arange(len(true), device=tower.device)[:, None]
        seen = unit_entries(embedded(embed, batch.frames[:, clips, visible])[0])
        return self.error(self.filling(seen, visible), true, _hidden(order, self.shown))


class _Filling(nn.Module):
    """A small transformer that says every place of a sequence of P from the vectors at some places."""

    def __init__(self, width: int, places: int, out: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, _WIDTH), nn.Linear(_WIDTH, out)
        self.hidden = nn.Parameter(0.02 * torch.randn(_WIDTH))
        self.place = nn.Parameter(0.02 * torch.randn(places, _WIDTH))
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, 4 * _WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.mix = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)

    def forward(self, seen: Tensor, visible: Tensor) -> Tensor:
        """What is said of all places, [N, P, out]. seen: [N, V, width] at the places ``visible``, int64 [N, V]."""
        empty = self.hidden.expand(len(seen), len(self.place), -1)
        tokens = empty.scatter(1, visible[..., None].expand(-1, -1, _WIDTH), self.enter(seen).to(empty))
        said: Tensor = self.leave(self.mix(tokens + self.place))
        return said


def sees_patches(module: nn.Module) -> bool:
    """Whether a network is a vision transformer of timm, whose patches can be hidden."""
    return any(
        kind.__name__ == "VisionTransformer" and kind.__module__ == "timm.models.vision_transformer"
        for kind in type(module).__mro__
    )


def shown_of(places: int, share: float) -> int:
    """How many of so many places stay visible where ``share`` of them is hidden: one at least, and not all."""
    return min(max(round(places * (1 - share)), 1), places - 1)


def _hidden(order: Tensor, shown: int) -> Tensor:
    """Whether each place is hidden, bool [N, P], where the first ``shown`` places of ``order`` [N, P] are visible."""
    hidden = torch.ones(order.shape, dtype=torch.bool, device=order.device)
    return hidden.scatter(1, order[:, :shown], False)


def _unit_patches(pictures: Tensor, side: int) -> Tensor:
    """The patches [N, P, 3 side^2] of pictures [N, 3, S, S], each with mean 0 and deviation 1."""
    cut = pictures.unfold(2, side, side).unfold(3, side, side)  # [N, 3, rows, columns, side, side]
    patches = cut.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    mean = patches.mean(-1, keepdim=True)
    return (patches - mean) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def _tokens(model: Any, pictures: Tensor, visible: Tensor) -> Tensor:
    """What the tower makes of the visible patches alone, float32 [N, V, D]."""
    x = model._pos_embed(model.patch_embed(pictures))
    before = model.num_prefix_tokens
    patches = x[:, before:].gather(1, visible[..., None].expand(-1, -1, x.shape[-1]))
    x = model.norm_pre(torch.cat([x[:, :before], patches], 1))
    tokens: Tensor = model.norm(model.blocks(x))[:, before:]
    return tokens.float()
