"""Word prototypes: Ridge Regression, Hubness, and Zero-Shot Learning (Shigeto et al., ECML PKDD 2015).

A ridge regression maps class words to the mean features of classes, the reverse of mapping features to words, so that
no class becomes the neighbour of most clips. Here it is a kernel regression, and clips are compared with what it makes
of a class's words in features that the spread within base classes whitens. Supports are not used. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..settings import Count, NonNegative, Positive, Settings, Share


@dataclass(frozen=True)
class WordPrototypesSettings(Settings):
    """The settings of the word prototypes."""

    penalty: Positive = 0.3
    """The ridge of the regression; kernel values are 1 for equal words."""
    width: NonNegative = 0.5
    """The width of the kernel exp((cos - 1) / width) of centred words; 0 for plain cosines, a linear map."""
    whiten: bool = True
    """Whiten features by the covariance within base classes."""
    shrinkage: Share = 0.6
    """How far that covariance is drawn to a multiple of the identity."""
    temperature: Positive = 0.1
    """What cosines are divided by; it calibrates posteriors and changes no decision."""
    classes: Count = 1024
    """The most base classes, whose words are kept with the head."""


class WordPrototypes(Head[WordPrototypesSettings]):
    Settings = WordPrototypesSettings
    centre: Tensor
    whitening: Tensor
    word_centre: Tensor
    known: Tensor
    slope: Tensor

    def __init__(self, inputs: Inputs, settings: WordPrototypesSettings) -> None:
        super().__init__(inputs, settings)
        _, _, dim = inputs.one()
        width = inputs.word_dim or 1
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("whitening", torch.eye(dim))
        self.register_buffer("word_centre", torch.zeros(width))
        self.register_buffer("known", torch.zeros(settings.classes, width))
        self.register_buffer("slope", torch.zeros(settings.classes, dim))

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Finds the whitening of features and the regression from words to class means, in closed form."""
        if base.words is None:
            raise UsageError("Word prototypes need class words; extract a word stream.")
        if len(base.class_names) > self.settings.classes:
            raise UsageError(
                f"There are {len(base.class_names)} base classes and the head keeps {self.settings.classes}; raise "
                f"that with --set classes={len(base.class_names)}."
            )
        (table,) = base.pooled().tables.values()
        rows = torch.arange(len(base), device=base.device)[table.present]
        x = table.gather(rows).pooled().double()
        label = base.label[rows]
        hot = F.one_hot(label, len(base.class_names)).to(x)
        here = hot.sum(0) > 0
        hot, centre = hot[:, here], x.mean(0)
        means = hot.T @ (x - centre) / hot.sum(0)[:, None]
        whitening = self._whitening(x - centre - hot @ means)
        unit = F.normalize(base.words.double(), dim=-1)[here]
        self.centre, self.word_centre = centre.to(self.centre), unit.mean(0).to(self.word_centre)
        self.whitening = whitening.to(self.whitening)
        known = F.normalize(unit - unit.mean(0), dim=-1)
        ridge = self.settings.penalty * torch.eye(len(known), dtype=known.dtype, device=known.device)
        slope = torch.linalg.solve(self._kernel(known, known) + ridge, means @ whitening)
        # Rows without a class have a zero slope, so that they say nothing.
        for kept, rows_of in ((self.known, known), (self.slope, slope)):
            kept.zero_()[: len(rows_of)] = rows_of.to(kept)

    def _whitening(self, away: Tensor) -> Tensor:
        """A matrix L [D, D] such that x L scatters alike in every direction; away: clips minus class means [n, D]."""
        eye = torch.eye(away.shape[1], dtype=away.dtype, device=away.device)
        if not self.settings.whiten:
            return eye
        share, covariance = self.settings.shrinkage, away.T @ away / max(len(away), 1)
        level = covariance.diagonal().mean().clamp(min=1e-12)
        values, vectors = torch.linalg.eigh((1 - share) * covariance + share * level * eye)
        return vectors / values.clamp(min=1e-6 * float(level)).sqrt()

    def _kernel(self, words: Tensor, known: Tensor) -> Tensor:
        """How alike words [..., E] and known ones [C, E] are, both centred and of length one, [..., C]."""
        near = words @ known.T
        return ((near - 1) / self.settings.width).exp() if self.settings.width else near

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where there are no class words."""
        if episodes.words is None:
            raise UsageError("Word prototypes need class words; extract a word stream.")
        (query,) = episodes.query.values()
        x = (query.pooled().to(self.centre.dtype) - self.centre) @ self.whitening
        near = cosine(x, self.prototypes(episodes.words.to(self.centre.dtype)))
        every_class = torch.ones_like(episodes.class_id, dtype=torch.bool)  # every class has words
        return neutral(near / self.settings.temperature, query.present, every_class)

    def prototypes(self, words: Tensor) -> Tensor:
        """What the regression makes of class words [..., E], whitened features [..., D] around the base mean."""
        words = F.normalize(F.normalize(words, dim=-1) - self.word_centre, dim=-1)
        return self._kernel(words, self.known) @ self.slope
