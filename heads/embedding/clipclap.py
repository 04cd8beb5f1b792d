"""ClipClap-GZSL: Audio-Visual Generalized Zero-Shot Learning using Pre-Trained Large Multi-Modal Models (Kurzendörfer
et al., CVPR Workshops 2024).

What is heard and seen is joined and embedded as one vector, and so are class words, by plain networks under a
cross-entropy over all base classes, reconstructions of the words and the gap to the words' place. It was made for
features of CLIP and CLAP with the words of both, and takes any. A query goes to the nearest class. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs, Losses
from ..parts.absence import zero_where_absent
from ..parts.embedding_net import applied, embedding_net
from ..settings import Count, Rate, Recipe
from .audio_visual import AnchoredHead, AnchorSettings, Pairs, Points


@dataclass(frozen=True)
class ClipClapSettings(AnchorSettings):
    """ClipClap's settings."""

    width: Count = 512
    """The width of the joined features and of the encoded words."""
    hidden: Count = 512
    """The width of the hidden layer of the projection and of its decoder."""
    dim: Count = 64
    """The width of the space."""
    dropout: Rate = 0.1
    """The dropout after every step of every network."""
    cross_entropy: bool = True
    """Add the cross-entropy of the dot products with all base classes' places."""
    gap: bool = True
    """Add the squared gap between a clip's place and its words'."""
    reconstruct: bool = True
    """Add the squared gaps between the encoded words and those that are decoded from both places."""


class ClipClap(AnchoredHead[ClipClapSettings]):
    Settings = ClipClapSettings
    recipe = Recipe(steps=600, tasks=64, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)

    def __init__(self, inputs: Inputs, settings: ClipClapSettings) -> None:
        super().__init__(inputs, settings)
        own = settings

        def net(width: int, hidden: int, out: int) -> nn.Sequential:
            return embedding_net(width, hidden, out, dropout=own.dropout)

        self.join = net(self.video_dim + self.audio_dim, 0, own.width)
        self.encode_word = net(self.word_dim, 0, own.width)
        self.project = net(own.width, own.hidden, own.dim)
        self.decode = net(own.dim, own.hidden, own.width)
        self.project_word = net(own.width, 0, own.dim)
        self.decode_word = net(own.dim, 0, own.width)

    def points(self, audio: Stream, video: Stream) -> Points:
        """One point a clip; a modality that it lacks is zero in the joined features."""
        place = applied(self.project, applied(self.join, self._joined(audio, video)))
        return Points(place[..., None, :], (audio.present | video.present)[..., None].to(place.dtype))

    def _joined(self, audio: Stream, video: Stream) -> Tensor:
        """What is seen and heard side by side, [..., Dv + Da]."""
        return torch.cat([zero_where_absent(s.pooled(), s.present) for s in (video, audio)], -1)

    def place_words(self, words: Tensor) -> Tensor:
        return applied(self.project_word, applied(self.encode_word, words))

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """The terms that the settings name; the words of the batch and of all classes are two batches of the norms."""
        own = self.settings
        word = self.encode_word(pairs.word)
        named = self.project_word(word)
        place = self.project(self.join(self._joined(pairs.audio, pairs.video)))
        parts: dict[str, Tensor] = {}
        if own.gap:
            parts["gap"] = F.mse_loss(place, named)
        if own.reconstruct:
            parts["words"] = F.mse_loss(word, self.decode(place)) + F.mse_loss(word, self.decode_word(named))
        if own.cross_entropy:
            parts["ce"] = F.cross_entropy(place @ self.place_words(words).T, pairs.label)
        return Losses(
            sum(parts.values(), place.sum() * 0.0), {name: value.detach() for name, value in parts.items()}
        )
