"""TCaF: Temporal and Cross-modal Attention for Audio-Visual Zero-Shot Learning (Mercea et al., ECCV 2022).

A transformer reads the steps of what is heard and seen, each of which attends to the other modality alone and to one
class token. The token is projected to the space of class words under a cross-entropy over all base classes,
reconstructions of the words and the gap to the words' place. A query goes to the nearest class. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs, Losses
from ..parts.av_sequence import Attention, AVSequence, Widths
from ..parts.embedding_net import applied, embedding_net
from ..settings import Count, CountOrNone, Rate, Recipe
from .audio_visual import AnchoredHead, AnchorSettings, Pairs, Points

SOUND_RANGE = 255.0
"""The public code divides its audio features, which are bytes, by this."""


@dataclass(frozen=True)
class TCaFSettings(AnchorSettings):
    """TCaF's settings."""

    attention: Literal["within", "between", "all"] = "between"
    """Whether steps attend within their modality, to the other one (as published), or to all."""
    dim: Count = 64
    """The width of the space."""
    token: Count = 128
    """The width of a token; 300 as published."""
    hidden: CountOrNone = 256
    """The width of the hidden layer of the encoders of steps."""
    project_hidden: CountOrNone = 256
    """The width of the hidden layer of the token's projection and of its decoder."""
    depth: Count = 2
    """The number of transformer blocks; 5 or 6 as published."""
    heads: Count = 8
    """The number of attention heads."""
    head_dim: Count = 16
    """The width of an attention head; 64 as published."""
    feed_forward: Count = 128
    """The width of the hidden layer of a transformer block."""
    place: Count = 64
    """The width of what says which modality and moment a step is."""
    time: Literal["sinusoid", "fixed"] = "sinusoid"
    """The moment of a step by random Fourier features, or by a learned table."""
    time_rows: Count = 200
    """The number of rows of that table."""
    encoder_dropout: Rate = 0.2
    """The dropout of the encoders of steps."""
    decoder_dropout: Rate = 0.2
    """The dropout of projections and decoders."""
    dropout: Rate = 0.2
    """The dropout of the transformer."""
    released_inputs: bool = False
    """Read audio as x / 255, and scale each video feature to length one over time, as the public code does."""


class TCaF(AnchoredHead[TCaFSettings]):
    Settings = TCaFSettings
    recipe = Recipe(steps=600, tasks=64, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)

    def __init__(self, inputs: Inputs, settings: TCaFSettings) -> None:
        super().__init__(inputs, settings)
        own = settings
        attention: list[Attention] = [own.attention] * own.depth
        self.sequence = AVSequence(
            self.audio_dim,
            self.video_dim,
            Widths(own.token, own.hidden, own.place, own.heads, own.head_dim, own.feed_forward),
            attention=attention,
            time=own.time,
            time_rows=own.time_rows,
            encoder_dropout=own.encoder_dropout,
            dropout=own.dropout,
        )
        out = own.decoder_dropout
        self.project = embedding_net(own.token, own.project_hidden, own.dim, dropout=out)
        self.decode = embedding_net(own.dim, own.project_hidden, self.word_dim, dropout=out)
        self.project_word = embedding_net(self.word_dim, 0, own.dim, dropout=out)
        self.decode_word = embedding_net(own.dim, 0, self.word_dim, dropout=out)

    def points(self, audio: Stream, video: Stream) -> Points:
        """One point a clip; it attends to the steps that it has."""
        place = self.place(audio, video)
        return Points(place[..., None, :], (audio.present | video.present)[..., None].to(place.dtype))

    def place(self, audio: Stream, video: Stream, times: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Where clips lie, [..., D]; times: the moments of the steps of either [..., T], None for their numbers."""
        if self.settings.released_inputs:
            audio, video = as_released(audio, video)
        return applied(self.project, self.sequence(audio, video, times))

    def place_words(self, words: Tensor) -> Tensor:
        return applied(self.project_word, words)

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        return self.losses(pairs, words)

    def losses(self, pairs: Pairs, words: Tensor, times: tuple[Tensor, Tensor] | None = None) -> Losses:
        """Cross-entropy over all base classes, the gap to the words' place, and the words found in both places."""
        place, named = self.place(pairs.audio, pairs.video, times), self.project_word(pairs.word)
        parts = {
            "ce": F.cross_entropy(place @ self.place_words(words).T, pairs.label),
            "gap": F.mse_loss(place, named),
            "words": F.mse_loss(pairs.word, self.decode(place))
            + F.mse_loss(pairs.word, self.decode_word(named)),
        }
        return Losses(torch.stack(list(parts.values())).sum(), {k: v.detach() for k, v in parts.items()})


def as_released(audio: Stream, video: Stream) -> tuple[Stream, Stream]:
    """Clips as the public code of TCaF and AV-DIFF reads them: bytes of audio, and video of unit length over time."""
    return (
        Stream(audio.x / SOUND_RANGE, audio.present, audio.length),
        Stream(F.normalize(video.x, dim=-2), video.present, video.length),
    )
