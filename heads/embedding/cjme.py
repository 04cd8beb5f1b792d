"""CJME: Coordinated Joint Multimodal Embeddings for Generalized Audio-Visual Zero-shot Classification and Retrieval of
Videos (Parida et al., WACV 2020).

What is heard, what is seen and class words are embedded in one space by triplets. An attention alpha says for each clip
how far its video is to be trusted, and is taught by which of the two is surer of its class. A query goes to the class
with the least (1 - alpha) |a - t| + alpha |v - t|. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Stream
from ..head import Inputs, Losses
from ..parts.embedding_net import applied, embedding_net, triplet
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe
from .audio_visual import AnchoredHead, AnchorSettings, Pairs, Points, wrong_pairs


@dataclass(frozen=True)
class CJMESettings(AnchorSettings):
    """CJME's settings."""

    dim: Count = 64
    """The width of the space."""
    hidden: Count = 256
    """The width of the hidden layer of the audio and the video network."""
    text_hidden: CountOrNone = 0
    """The width of the hidden layer of the words' network; 0: that of the words."""
    norm: bool = True
    """Whether the networks have a batch norm after their hidden layer."""
    dropout: Rate = 0.2
    """The dropout after the hidden layers."""
    margin: NonNegative = 1.0
    """The margin of the triplets."""
    surer: NonNegative = 0.1
    """How much less the entropy of one modality must be, in nats, for the attention to be taught to trust it alone."""
    paired_attention: bool = False
    """Weigh each clip's triplets by its own attention (the paper's text); false: by the batch's mean attention, which
    is what the public code computes by broadcasting."""


class CJME(AnchoredHead[CJMESettings]):
    Settings = CJMESettings
    recipe = Recipe(steps=600, tasks=128, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)

    def __init__(self, inputs: Inputs, settings: CJMESettings) -> None:
        super().__init__(inputs, settings)

        def net(width: int, hidden: int) -> nn.Sequential:
            return embedding_net(
                width, hidden, settings.dim, norm=settings.norm, last="relu", dropout=settings.dropout
            )

        self.audio_net = net(self.audio_dim, settings.hidden)
        self.video_net = net(self.video_dim, settings.hidden)
        self.word_net = net(self.word_dim, settings.text_hidden or self.word_dim)
        both = self.audio_dim + self.video_dim
        self.attention = nn.Sequential(nn.BatchNorm1d(both), nn.Linear(both, 1))

    def points(self, audio: Stream, video: Stream) -> Points:
        """Two points a clip, where it is heard and where it is seen; a clip with one of them lies there alone."""
        place = torch.stack(
            [applied(self.audio_net, audio.pooled()), applied(self.video_net, video.pooled())], -2
        )
        trust = self.trust(audio.pooled(), video.pooled())
        trust = torch.where(audio.present, trust, 1.0) * video.present
        return Points(place, torch.stack([(1 - trust) * audio.present, trust], -1))

    def trust(self, audio: Tensor, video: Tensor) -> Tensor:
        """The attention alpha in (0, 1) to the video of clips [..., Da] and [..., Dv], [...]."""
        return applied(self.attention, torch.cat([audio, video], -1))[..., 0].sigmoid()

    def place_words(self, words: Tensor) -> Tensor:
        return applied(self.word_net, words)

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """Attended triplets, the squared gap between the modalities, and that of the attention from its target."""
        own = self.settings
        right, wrong = wrong_pairs(pairs)
        heard, seen, named = self._embedded(right)
        heard_wrong, seen_wrong, _ = self._embedded(wrong)
        trust = self.trust(right.audio.pooled(), right.video.pooled())
        with torch.no_grad():
            target = self.target(heard, seen, self.place_words(words))
        by_audio = triplet(named, heard, heard_wrong, own.margin)
        by_video = triplet(named, seen, seen_wrong, own.margin)
        if own.paired_attention:
            attended = ((1 - trust) * by_audio + trust * by_video).mean()
        else:
            attended = (1 - trust).mean() * by_audio.mean() + trust.mean() * by_video.mean()
        parts = {
            "triplets": attended,
            "between": F.mse_loss(heard, seen),
            "attention": F.mse_loss(trust, target),
        }
        return Losses(torch.stack(list(parts.values())).sum(), {k: v.detach() for k, v in parts.items()})

    def _embedded(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Where pairs are heard, seen and named, three [M, D]; each call is one batch of the batch norms."""
        return (
            self.audio_net(pairs.audio.pooled()),
            self.video_net(pairs.video.pooled()),
            self.word_net(pairs.word),
        )

    def target(self, heard: Tensor, seen: Tensor, names: Tensor) -> Tensor:
        """What the attention is taught [M]: 1 where audio is less sure of a class than video, 0 the other way round.

        Where their entropies differ by ``surer`` or less it is 1/2. heard, seen: [M, D]; names: [C, D].
        """
        gap = _entropy(heard @ names.T) - _entropy(seen @ names.T)
        half = torch.full_like(gap, 0.5)
        return half.masked_fill(gap > self.settings.surer, 1.0).masked_fill(gap < -self.settings.surer, 0.0)


def _entropy(logits: Tensor) -> Tensor:
    """The Shannon entropy of softmax(logits) [M, C] in nats, [M]."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
