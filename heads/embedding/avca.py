"""AVCA: Audio-visual Generalised Zero-shot Learning with Cross-modal Attention and Language (Mercea et al., CVPR 2022).

What is heard and what is seen attend to one another as two tokens, and are then projected to the space of class words
by triplets, reconstructions and decoders that must find the words again. A query goes to the class whose words are
nearest to its video's place, which has attended to the audio. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs, Losses
from ..parts.embedding_net import MOMENTUM, applied, embedding_net, triplet
from ..parts.pre_norm_block import PreNormBlock
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe, Share
from .audio_visual import AnchoredHead, AnchorSettings, Pairs, Points, wrong_pairs


@dataclass(frozen=True)
class AVCASettings(AnchorSettings):
    """AVCA's settings."""

    decide: Literal["video", "audio", "both"] = "video"
    """The place that is compared with words: that of what is seen (as published), of what is heard, or both. A clip
    without the one is decided by the other."""
    dim: Count = 64
    """The width of the space."""
    hidden: CountOrNone = 512
    """The width of the hidden layer of the encoders; 0 for none."""
    project_hidden: CountOrNone = 512
    """The width of the hidden layer of the projections; 0 for none."""
    depth: Count = 1
    """The number of transformer blocks."""
    heads: Count = 3
    """The number of attention heads."""
    head_dim: CountOrNone = 0
    """The width of an attention head; 0: what the words' width over the heads is, as published."""
    feed_forward: Count = 64
    """The width of the hidden layer of the transformer."""
    encoder_dropout: Rate = 0.2
    """The dropout of encoders and transformer."""
    decoder_dropout: Rate = 0.3
    """The dropout of decoders."""
    project_dropout: Rate = 0.1
    """The dropout of projections."""
    momentum: Share = MOMENTUM
    """The momentum of the second batch norm of each network."""
    margin: NonNegative = 1.0
    """The margin of the triplets."""
    more_triplets: bool = True
    """Add the triplets in which a clip's anchor competes with its own wrong pair (l_t)."""
    regular: bool = True
    """Add reconstructions of the attended features and the gap to the words' place (l_r)."""


class Embedded(NamedTuple):
    """What the networks make of M pairs.

    phi: the encoded features; place: in the space of words; word: the words that the decoder finds in each place;
    again: the encoded features that are found again. Of what is heard (a), seen (v) and named (w).
    """

    phi_a: Tensor
    phi_v: Tensor
    place_a: Tensor
    place_v: Tensor
    place_w: Tensor
    word_a: Tensor
    word_v: Tensor
    word_w: Tensor
    again_a: Tensor
    again_v: Tensor


class AVCA(AnchoredHead[AVCASettings]):
    Settings = AVCASettings
    recipe = Recipe(steps=600, tasks=128, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)

    def __init__(self, inputs: Inputs, settings: AVCASettings) -> None:
        super().__init__(inputs, settings)
        own, words = settings, self.word_dim

        def net(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
            return embedding_net(width, hidden, out, dropout=dropout, momentum=own.momentum)

        self.encode_audio = net(self.audio_dim, own.hidden, words, own.encoder_dropout)
        self.encode_video = net(self.video_dim, own.hidden, words, own.encoder_dropout)
        # As published, the positions stay what they are drawn as.
        self.position = nn.Parameter(torch.randn(2, words), requires_grad=False)
        self.blocks = nn.ModuleList(
            PreNormBlock(
                words,
                heads=own.heads,
                head_dim=own.head_dim or max(words // own.heads, 1),
                hidden=own.feed_forward,
                dropout=own.encoder_dropout,
                one_norm=False,
            )
            for _ in range(own.depth)
        )
        self.project_audio = net(words, own.project_hidden, own.dim, own.project_dropout)
        self.project_video = net(words, own.project_hidden, own.dim, own.project_dropout)
        self.project_word = net(words, 0, own.dim, own.project_dropout)
        self.decoder = net(own.dim, 0, words, own.decoder_dropout)
        self.again_audio = net(own.dim, 0, words, own.decoder_dropout)
        self.again_video = net(own.dim, 0, words, own.decoder_dropout)

    def points(self, audio: Stream, video: Stream) -> Points:
        """Two points a clip, where it is heard and where it is seen; each has attended to the other one."""
        _, _, heard, seen = self._placed(audio, video)
        has_audio, has_video = audio.present, video.present
        if self.settings.decide == "video":
            counts = [has_audio & ~has_video, has_video]
        elif self.settings.decide == "audio":
            counts = [has_audio, has_video & ~has_audio]
        else:
            counts = [has_audio, has_video]
        return Points(torch.stack([heard, seen], -2), torch.stack(counts, -1).to(heard.dtype))

    def _placed(self, audio: Stream, video: Stream) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The encoded features of what is heard and seen [..., E], and their places [..., D]."""
        phi = torch.stack(
            [applied(self.encode_audio, audio.pooled()), applied(self.encode_video, video.pooled())], -2
        )
        held = torch.stack([audio.present, video.present], -1)
        allowed = held[..., None, :].expand(*held.shape, 2)
        tokens = phi + self.position
        for block in self.blocks:
            tokens = block(tokens, allowed)
        heard, seen = (phi + tokens).unbind(-2)
        places = applied(self.project_audio, heard), applied(self.project_video, seen)
        return phi[..., 0, :], phi[..., 1, :], *places

    def place_words(self, words: Tensor) -> Tensor:
        return applied(self.project_word, words)

    def embedded(self, pairs: Pairs) -> Embedded:
        """What the networks make of pairs; each call is one batch of the batch norms."""
        phi_a, phi_v, place_a, place_v = self._placed(pairs.audio, pairs.video)
        place_w = self.project_word(pairs.word)
        words = [self.decoder(place) for place in (place_w, place_a, place_v)]
        return Embedded(
            phi_a=phi_a,
            phi_v=phi_v,
            place_a=place_a,
            place_v=place_v,
            place_w=place_w,
            word_a=words[1],
            word_v=words[2],
            word_w=words[0],
            again_a=self.again_audio(place_a),
            again_v=self.again_video(place_v),
        )

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """The sum of reconstructions, triplets of decoded words, triplets of places and, if asked for, the others."""
        right, wrong = wrong_pairs(pairs)
        return self.losses(self.embedded(right), self.embedded(wrong), right.word)

    def losses(self, own: Embedded, other: Embedded, word: Tensor) -> Losses:
        """The objective of embedded pairs, their wrong pairs, and the words [M, E] of the first."""
        parts = {
            "words": F.mse_loss(own.word_v, word)
            + F.mse_loss(own.word_a, word)
            + F.mse_loss(own.word_w, word),
            "decoded": self._triplet(own.word_w, own.word_a, other.word_a)
            + self._triplet(own.word_w, own.word_v, other.word_v),
            "places": self._triplet(own.place_w, own.place_v, other.place_v)
            + self._triplet(own.place_w, own.place_a, other.place_a)
            + self._triplet(own.place_a, own.place_w, other.place_w)
            + self._triplet(own.place_v, own.place_w, other.place_w),
        }
        if self.settings.more_triplets:
            parts["more"] = (
                self._triplet(own.place_a, own.place_w, other.place_a)
                + self._triplet(own.place_v, own.place_w, other.place_v)
                + self._triplet(own.place_w, own.place_a, other.place_w)
                + self._triplet(own.place_w, own.place_v, other.place_w)
            )
        if self.settings.regular:
            parts["regular"] = (
                F.mse_loss(own.again_v, own.phi_v)
                + F.mse_loss(own.again_a, own.phi_a)
                + F.mse_loss(own.place_v, own.place_w)
                + F.mse_loss(own.place_a, own.place_w)
            )
        return Losses(torch.stack(list(parts.values())).sum(), {k: v.detach() for k, v in parts.items()})

    def _triplet(self, anchor: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
        return triplet(anchor, right, wrong, self.settings.margin).mean()
