"""A transformer over the steps of what is heard and what is seen, read from one class token: TCaF's and AV-DIFF's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ...episodes.batch import Stream
from .embedding_net import applied, embedding_net
from .pre_norm_block import PreNormBlock

Attention = Literal["within", "between", "all"]
Time = Literal["sinusoid", "fixed"]
FREQUENCY = 10.0  # The spread of the random frequencies of time.


class Widths(NamedTuple):
    """The widths of the transformer's parts."""

    token: int
    """A token."""
    hidden: int
    """The hidden layer of the encoders of steps; 0 for none."""
    place: int
    """What is added to say which modality and moment a step is; even."""
    heads: int
    """The number of attention heads."""
    head: int
    """An attention head."""
    feed_forward: int
    """The hidden layer of a block."""


class AVSequence(nn.Module):
    """Clips [..., T, D] of two modalities to vectors [..., token], the class token after all blocks.

    attention: for each block, whether steps attend within their modality, to the other one, or to all; the class token
    attends to all steps and all attend to it.
    """

    def __init__(
        self,
        audio_dim: int,
        video_dim: int,
        widths: Widths,
        *,
        attention: Sequence[Attention],
        time: Time,
        time_rows: int,
        encoder_dropout: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.attention = tuple(attention)
        self.audio_net, self.video_net = (
            embedding_net(dim, widths.hidden, widths.token, dropout=encoder_dropout)
            for dim in (audio_dim, video_dim)
        )
        self.place = StepPlace(widths.place, time, time_rows)
        wide = widths.token + widths.place
        self.join_audio, self.join_video = nn.Linear(wide, widths.token), nn.Linear(wide, widths.token)
        self.class_token = nn.Parameter(torch.randn(widths.token))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PreNormBlock(
                widths.token,
                heads=widths.heads,
                head_dim=widths.head,
                hidden=widths.feed_forward,
                dropout=dropout,
                one_norm=True,
            )
            for _ in self.attention
        )

    def forward(self, audio: Stream, video: Stream, times: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The class token [..., token]; times: the moment of each step [..., T] of either, None for their numbers."""
        first, second = (None, None) if times is None else times
        heard = self.tokens(audio, 0, first)
        seen = self.tokens(video, 1, second)
        start = self.class_token.expand(*heard.shape[:-2], 1, -1)
        x = torch.cat([start, heard, seen], -2)
        held = torch.cat([torch.ones_like(start[..., 0], dtype=torch.bool), audio.mask(), video.mask()], -1)
        kind = torch.cat([torch.full((n,), k) for k, n in enumerate((1, heard.shape[-2], seen.shape[-2]))])
        masks = {how: self._allowed(kind.to(x.device), held, how) for how in set(self.attention)}
        for how, block in zip(self.attention, self.blocks):
            x = block(x, masks[how])
        return x[..., 0, :]

    def tokens(self, stream: Stream, modality: int, time: Tensor | None) -> Tensor:
        """The tokens [..., T, token] of a modality's steps, 0 for what is heard and 1 for what is seen."""
        net, join = ((self.audio_net, self.join_audio), (self.video_net, self.join_video))[modality]
        if time is None:
            steps = torch.arange(stream.x.shape[-2], device=stream.x.device)
            time = steps.expand(stream.x.shape[:-1])
        place = self.place(modality, time.to(stream.x.dtype), ~stream.mask())
        return self.dropout(join(torch.cat([applied(net, stream.x), place], -1)))

    @staticmethod
    def _allowed(kind: Tensor, held: Tensor, how: Attention) -> Tensor:
        """Which token may attend to which, bool [..., L, L], by their kinds [L] and whether they are held [..., L]."""
        same = kind[:, None] == kind[None]
        start = (kind == 0)[:, None] | (kind == 0)[None]
        ruled = {"within": same | start, "between": ~same | start, "all": torch.ones_like(same)}[how]
        return held[..., :, None] & held[..., None, :] & ruled


class StepPlace(nn.Module):
    """A vector for each step that says which modality it belongs to, when it is, and whether it is padding."""

    frequency: Tensor

    def __init__(self, width: int, time: Time, rows: int) -> None:
        super().__init__()
        self.modality, self.padding = nn.Embedding(2, width), nn.Embedding(1, width)
        self.table = nn.Embedding(rows, width) if time == "fixed" else None
        self.mix = nn.Linear(width // 2 * 2, width) if time == "sinusoid" else None
        self.register_buffer("frequency", FREQUENCY * torch.randn(2, width // 2))

    def forward(self, modality: int, time: Tensor, padded: Tensor) -> Tensor:
        """The vectors [..., T, width] of steps at moments [..., T], of which some are padded, bool [..., T]."""
        if self.table is not None:
            row = time.round().long().clamp(0, self.table.num_embeddings - 1)
            moment = self.table(row)
        else:
            assert self.mix is not None, "one of the two kinds of time was built"
            angle = 2 * math.pi * torch.stack([time, time], -1) @ self.frequency.to(time.dtype)
            moment = self.mix(torch.cat([angle.sin(), angle.cos()], -1))
        place: Tensor = self.modality.weight[modality] + moment + padded[..., None] * self.padding.weight[0]
        return place
