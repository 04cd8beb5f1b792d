"""Ridge to words: Zero-shot Learning with Semantic Output Codes (Palatucci et al., NeurIPS 2009), its linear map.

Ridge regression maps features to class-word vectors, in closed form from the base clips; a query goes to the class
whose words have the greatest cosine with its image. Supports are not used. Inductive.
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
from ..settings import Positive, Settings


@dataclass(frozen=True)
class RidgeWordsSettings(Settings):
    """The settings of the ridge map to words."""

    penalty: Positive = 1.0
    """The ridge, relative to the mean squared feature entry times the number of clips."""
    temperature: Positive = 0.1
    """What cosines are divided by; it calibrates posteriors and changes no decision."""


class RidgeWords(Head[RidgeWordsSettings]):
    Settings = RidgeWordsSettings
    map: Tensor
    centre: Tensor
    word_centre: Tensor

    def __init__(self, inputs: Inputs, settings: RidgeWordsSettings) -> None:
        super().__init__(inputs, settings)
        _, _, dim = inputs.one()
        width = inputs.word_dim or 1
        self.register_buffer("map", torch.zeros(dim, width))
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("word_centre", torch.zeros(width))

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Finds W = (X'X + lambda I)^-1 X'Y on centred features X [n, D] and centred unit word vectors Y [n, E]."""
        if base.words is None:
            raise UsageError("The ridge map to words needs class words; extract a word stream.")
        (table,) = base.pooled().tables.values()
        rows = torch.arange(len(base), device=base.device)[table.present]
        x = table.gather(rows).pooled().double()
        words = F.normalize(base.words.double(), dim=-1)
        y = words[base.label[rows]]
        centre, word_centre = x.mean(0), words.mean(0)
        x, y = x - centre, y - word_centre
        penalty = self.settings.penalty * x.square().mean() * len(x)
        gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.map = torch.linalg.solve(gram, x.T @ y).to(self.map)
        self.centre, self.word_centre = centre.to(self.centre), word_centre.to(self.word_centre)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where there are no class words."""
        if episodes.words is None:
            raise UsageError("The ridge map to words needs class words; extract a word stream.")
        (query,) = episodes.query.values()
        image, words = self.image(query.pooled()), self.names(episodes.words.to(query.x))
        class_present = torch.ones_like(episodes.class_id, dtype=torch.bool)  # every class has words
        return neutral(cosine(image, words) / self.settings.temperature, query.present, class_present)

    def image(self, x: Tensor) -> Tensor:
        """The images [..., E] of features [..., D] among centred words."""
        return (x - self.centre.to(x)) @ self.map.to(x)

    def names(self, words: Tensor) -> Tensor:
        """Class words [..., E] of length one, centred by those of the base classes."""
        return F.normalize(words, dim=-1) - self.word_centre.to(words)
