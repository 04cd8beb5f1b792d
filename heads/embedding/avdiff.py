"""AV-DIFF: Text-to-Feature Diffusion for Audio-Visual Few-Shot Learning (Mercea et al., GCPR 2023).

A transformer reads the steps of what is heard and seen, at first within each modality and then across both, and a
linear classifier reads its class token. A diffusion model learns to make such tokens from class words, so that a class
with few clips or none gets more: an episode's classifier is fitted to its supports and to tokens made from its words.
Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.av_sequence import Attention, AVSequence, Widths
from ..parts.diffusion import Diffusion
from ..parts.embedding_net import applied, embedding_net
from ..settings import Count, CountOrNone, NonNegative, Rate, Recipe
from .audio_visual import AudioVisualHead, AudioVisualSettings, Pairs
from .tcaf import as_released

PLACE = "place"  # The modality of the episodes that the fitted classifier gets.
CLASSIFIER = "linear-probe"


@dataclass(frozen=True)
class AVDIFFSettings(AudioVisualSettings):
    """AV-DIFF's settings."""

    dim: Count = 64
    """The width of the space."""
    token: Count = 128
    """The width of a token; 300 as published."""
    hidden: CountOrNone = 256
    """The width of the hidden layer of the encoders of steps; 512 as published."""
    project_hidden: CountOrNone = 256
    """The width of the hidden layer of the token's projection; 512 as published."""
    depth: Count = 2
    """The number of transformer blocks; 4 to 8 as published."""
    within: CountOrNone = 1
    """The number of first blocks that attend within each modality; the others attend to all steps."""
    heads: Count = 8
    """The number of attention heads."""
    head_dim: Count = 16
    """The width of an attention head; 64 as published."""
    feed_forward: Count = 128
    """The width of the hidden layer of a transformer block."""
    place: Count = 64
    """The width of what says which modality and moment a step is."""
    encoder_dropout: Rate = 0.2
    """The dropout of the encoders of steps and of the projection."""
    dropout: Rate = 0.2
    """The dropout of the transformer."""
    steps: Count = 100
    """The steps of the diffusion; 100 to 300 as published."""
    generator: Count = 64
    """The width of the generator's first hidden layer; each further one has half of it."""
    generator_layers: Count = 1
    """The number of the generator's hidden layers."""
    diffusion: NonNegative = 1.0
    """The weight of the diffusion's term in training."""
    fake: bool = False
    """Whether generated tokens train the classifier of base classes, too, as the public code's second phase does."""
    generated: CountOrNone = 5
    """How many generated tokens each class of an episode gets beside its supports; 0 for none."""
    released_inputs: bool = False
    """Read audio as x / 255, and scale each video feature to length one over time, as the public code does."""


class AVDIFF(AudioVisualHead[AVDIFFSettings]):
    Settings = AVDIFFSettings
    recipe = Recipe(steps=600, tasks=64, rate=1e-3, weight_decay=1e-5, evaluate_every=50, patience=6)
    noise: Tensor

    def __init__(self, inputs: Inputs, settings: AVDIFFSettings) -> None:
        super().__init__(inputs, settings)
        own = settings
        within: list[Attention] = ["within"] * min(own.within, own.depth)
        across: list[Attention] = ["all"] * (own.depth - len(within))
        attention = [*within, *across]
        self.sequence = AVSequence(
            self.audio_dim,
            self.video_dim,
            Widths(own.token, own.hidden, own.place, own.heads, own.head_dim, own.feed_forward),
            attention=attention,
            time="sinusoid",
            time_rows=1,
            encoder_dropout=own.encoder_dropout,
            dropout=own.dropout,
        )
        self.project = embedding_net(own.token, own.project_hidden, own.dim, dropout=own.encoder_dropout)
        self.classifier = nn.Linear(own.dim, max(inputs.base_classes, 1))
        self.diffusion = Diffusion(
            own.dim, self.word_dim, own.steps, hidden=own.generator, layers=own.generator_layers
        )
        # The same noise for each class and test, so that a head's answers can be repeated.
        self.register_buffer("noise", torch.randn(own.generated, own.steps + 1, own.dim))
        self.fitted = inputs.branches[CLASSIFIER](replace(inputs, streams={PLACE: (1, own.dim)}))

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N] of the classifier that is fitted to supports and generated tokens.

        Raises UsageError where there are neither supports nor class words.
        """
        audio, video = self.streams(episodes.query)
        query_present = audio.present | video.present
        query = _as_stream(self.tokens(audio, video), query_present)
        supports = self._supports(episodes)
        task = replace(episodes, support={PLACE: supports}, query={PLACE: query}, words=None)
        return neutral(self.fitted(task), query_present, supports.present.any(2))

    def _supports(self, episodes: Episodes) -> Stream:
        """What each class's classifier is fitted to, a Stream [B, N, K + G, 1, D]."""
        found: list[tuple[Tensor, Tensor]] = []
        if episodes.shots:
            audio, video = self.streams(episodes.support)
            found.append((self.tokens(audio, video), audio.present | video.present))
        if self.settings.generated and (episodes.words is not None or not found):
            made = self.made_of(self.words(episodes))
            found.append((made, torch.ones(made.shape[:-1], dtype=torch.bool, device=made.device)))
        places, present = zip(*found)
        return _as_stream(torch.cat(places, 2), torch.cat(present, 2))

    @torch.no_grad()
    def made_of(self, words: Tensor) -> Tensor:
        """Generated tokens [B, N, G, D] of class words [B, N, E]; each different class is made once."""
        rows, back = torch.unique(words.flatten(0, 1), dim=0, return_inverse=True)
        count = len(self.noise)
        noise = self.noise.to(rows).expand(len(rows), *self.noise.shape).flatten(0, 1)
        made = self.diffusion.sample(rows.repeat_interleave(count, 0), noise)
        return made.unflatten(0, (-1, count))[back].unflatten(0, words.shape[:2])

    def tokens(self, audio: Stream, video: Stream, times: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """The projected class tokens [..., D] of clips; times: the moments of the steps of either [..., T]."""
        if self.settings.released_inputs:
            audio, video = as_released(audio, video)
        return applied(self.project, self.sequence(audio, video, times))

    def pair_loss(self, pairs: Pairs, words: Tensor) -> Losses:
        """The objective with a random step and noise of the diffusion for each pair."""
        own = self.settings
        count = len(pairs.label)
        step = torch.randint(own.steps, (count,), device=pairs.label.device)
        noise = torch.randn(count, own.dim, device=step.device, dtype=pairs.word.dtype)
        fake = None
        if own.fake:
            chain = torch.randn(count, own.steps + 1, own.dim, device=step.device, dtype=pairs.word.dtype)
            fake = self.diffusion.sample(pairs.word, chain)
        return self.losses(self.tokens(pairs.audio, pairs.video), pairs, step=step, noise=noise, fake=fake)

    def losses(
        self, token: Tensor, pairs: Pairs, *, step: Tensor, noise: Tensor, fake: Tensor | None
    ) -> Losses:
        """Cross-entropy over the base classes, that of generated tokens where there are some, and the diffusion's.

        The tokens [M, D] are not detached from the diffusion's term, as published. step: int64 [M]; noise: [M, D].
        """
        parts = {"ce": F.cross_entropy(self.classifier(token), pairs.label)}
        if fake is not None:
            parts["fake ce"] = F.cross_entropy(self.classifier(fake), pairs.label)
        total = torch.stack(list(parts.values())).sum()
        parts["diffusion"] = self.diffusion.loss(token, pairs.word, step, noise)
        total = total + self.settings.diffusion * parts["diffusion"]
        return Losses(total, {name: value.detach() for name, value in parts.items()})


def _as_stream(x: Tensor, present: Tensor) -> Stream:
    """Vectors [..., D] at length one as a Stream of one step."""
    x = F.normalize(x, dim=-1) * present[..., None]
    return Stream(x[..., None, :], present, present.long())
