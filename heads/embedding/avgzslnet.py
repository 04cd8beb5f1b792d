"""AVGZSLNet: Audio-Visual Generalized Zero-Shot Learning by Reconstructing Label Features from Multi-Modal Embeddings
(Mazumder et al., WACV 2021).

What is heard, what is seen and class words are embedded in one space by triplets in every direction, and one decoder
must find the words again from each embedding, so that what is heard and seen means the class. A query goes to the class
with the least |a - t| + |v - t|. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs, Losses
from ..parts.embedding_net import applied, embedding_net, triplet
from ..settings import Count, NonNegative, Rate, Recipe
from .audio_visual import AnchoredHead, AnchorSettings, Pairs, Points, wrong_pairs


@dataclass(frozen=True)
class AVGZSLNetSettings(AnchorSettings):
    """AVGZSLNet's settings."""

    version: Literal["authors", "avca"] = "authors"
    """Which public code is followed: the authors', or the one in AVCA's repository, whose networks have one hidden
    layer, which has half of the triplets, and which measures reconstruction by the distance instead of its square."""
    dim: Count = 64
    """The width of the space."""
    audio_hidden: tuple[int, ...] = (256,)
    """The widths of the hidden layers of what is heard."""
    video_hidden: tuple[int, ...] = (256,)
    """The widths of the hidden layers of what is seen."""
    word_hidden: tuple[int, ...] = ()
    """The widths of the hidden layers of the words; none by the authors."""
    decoder_hidden: Count = 128
    """The width of the decoder's hidden layer."""
    norm: bool = False
    """Whether hidden layers have a batch norm, which AVCA's repository offers."""
    unit_decoded: bool = False
    """Whether decoded words are scaled to length one, which AVCA's repository offers."""
    squared: bool = False
    """Whether the distance of decoded words is squared, which AVCA's repository offers; the authors take its mean
    square over entries."""
    dropout: Rate = 0.5
    """The dropout after the hidden layers of what is heard and seen."""
    margin: NonNegative = 1.0
    """The margin of the triplets."""


class Embedded(NamedTuple):
    """Where clips are heard, seen and named, [M, D] each."""

    heard: Tensor
    seen: Tensor
    named: Tensor


class AVGZSLNet(AnchoredHead[AVGZSLNetSettings]):
    Settings = AVGZSLNetSettings
    recipe = Recipe(steps=600, tasks=128, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)

    def __init__(self, inputs: Inputs, settings: AVGZSLNetSettings) -> None:
        super().__init__(inputs, settings)
        self.audio_net = self._net(self.audio_dim, settings.audio_hidden, settings.dim, settings.dropout)
        self.video_net = self._net(self.video_dim, settings.video_hidden, settings.dim, settings.dropout)
        self.word_net = self._net(self.word_dim, settings.word_hidden, settings.dim, self._word_dropout)
        self.decoder = self._net(settings.dim, (settings.decoder_hidden,), self.word_dim, self._word_dropout)

    @property
    def _word_dropout(self) -> float:
        """The authors' dropout is that of what is heard and seen alone; the other version's is everywhere."""
        return 0.0 if self.settings.version == "authors" else self.settings.dropout

    def _net(self, width: int, hidden: tuple[int, ...], out: int, dropout: float) -> nn.Sequential:
        """A network of any number of hidden layers; the authors put dropout before ReLU, which is the same after it."""
        layers: list[nn.Module] = []
        for before, after in zip((width, *hidden), hidden):
            layers += embedding_net(before, 0, after, norm=self.settings.norm, dropout=dropout)
        return nn.Sequential(*layers, nn.Linear((width, *hidden)[-1], out))

    def points(self, audio: Stream, video: Stream) -> Points:
        """Two points a clip, where it is heard and where it is seen; a clip with one of them lies there alone."""
        place = torch.stack(
            [applied(self.audio_net, audio.pooled()), applied(self.video_net, video.pooled())], -2
        )
        held = torch.stack([audio.present, video.present], -1).to(place.dtype)
        return Points(place, 2 * held / held.sum(-1, keepdim=True).clamp(min=1))

    def place_words(self, words: Tensor) -> Tensor:
        return applied(self.word_net, words)

    def decoded(self, x: Tensor) -> Tensor:
        """The words [M, E] that the decoder finds in embeddings [M, D]."""
        found = applied(self.decoder, x)
        return F.normalize(found, dim=-1) if self.settings.unit_decoded else found

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """Triplets of embeddings, the gap between the words and the decoded ones, and triplets of decoded words."""
        right, wrong = wrong_pairs(pairs)
        own, other = self._embedded(right), self._embedded(wrong)
        parts = {
            "triplets": self.composite(own, other),
            "decoded": self.reconstruction(own, other, right.word),
        }
        return Losses(torch.stack(list(parts.values())).sum(), {k: v.detach() for k, v in parts.items()})

    def _embedded(self, pairs: Pairs) -> Embedded:
        """Where pairs are heard, seen and named; each call is one batch of the batch norms."""
        return Embedded(
            self.audio_net(pairs.audio.pooled()),
            self.video_net(pairs.video.pooled()),
            self.word_net(pairs.word),
        )

    def composite(self, own: Embedded, other: Embedded) -> Tensor:
        """The triplets between words and each modality; the authors' run both ways round, from either pair."""
        total = own.named.new_zeros(())
        for x, wrong in ((own.heard, other.heard), (own.seen, other.seen)):
            total = total + self._triplet(own.named, x, wrong) + self._triplet(x, own.named, other.named)
            if self.settings.version == "authors":
                total = total + self._triplet(other.named, wrong, x)
                total = total + self._triplet(wrong, other.named, own.named)
        return total

    def reconstruction(self, own: Embedded, other: Embedded, word: Tensor) -> Tensor:
        """How far the words found in each embedding are from the class's own, and their triplets."""
        named, heard, seen = self.decoded(own.named), self.decoded(own.heard), self.decoded(own.seen)
        gaps = sum((self._gap(found, word) for found in (named, heard, seen)), word.new_zeros(()))
        return (
            gaps
            + self._triplet(named, heard, self.decoded(other.heard))
            + self._triplet(named, seen, self.decoded(other.seen))
        )

    def _gap(self, found: Tensor, word: Tensor) -> Tensor:
        if self.settings.version == "authors":
            return F.mse_loss(found, word)
        gap = F.pairwise_distance(found, word)
        return (gap.square() if self.settings.squared else gap).mean()

    def _triplet(self, anchor: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        return triplet(anchor, right, wrong, self.settings.margin).mean()
