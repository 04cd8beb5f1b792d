"""GDA's base-to-new form: A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation (Wang et al., ICLR 2024).

A class that has words and no clips borrows the base clips that are nearest to its words: they and the words make its
mean, and their scatter about the words a covariance that all classes share. Supports are not used. Inductive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ..decided import Decided
from ..head import Inputs
from ..settings import Count, NonNegative
from .gda import offsets, shrunk_precision
from .word_head import WordHead, WordSettings, WordTask
from .word_weights import unit_clips


@dataclass(frozen=True)
class GDANewSettings(WordSettings):
    """The settings of the base-to-new form."""

    alpha: NonNegative = 1.0
    """The weight of the Gaussian classifier beside the words; the published one was chosen on labelled clips."""
    neighbours: Count = 64
    """The base clips nearest to a class's words that stand in for its own, as published."""
    copies: Count = 16
    """How many times the words themselves count in a class's mean, as published."""
    clips: Count = 4096
    """The most base clips that are kept, the same number of each class as far as there are."""


class GDANew(WordHead[GDANewSettings]):
    Settings = GDANewSettings
    decided: ClassVar[Mapping[str, Decided]] = {
        **WordHead.decided,
        "alpha": Decided("none", "clips of base classes with the base classifier"),
        "neighbours and copies": Decided("none"),
    }
    base: Tensor
    held: Tensor

    def __init__(self, inputs: Inputs, settings: GDANewSettings) -> None:
        super().__init__(inputs, settings)
        self.register_buffer("base", torch.zeros(settings.clips, inputs.one()[2]))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Fits the map of words, and keeps base clips."""
        super().fit_base(base)
        x, label = unit_clips(base)
        if base.multi:
            x = x[: self.settings.clips]
        else:
            x = x[_taking_turns(label)[: self.settings.clips]]
        self.base[: len(x)] = x.to(self.base)
        self.held.fill_(len(x))

    def decide(self, task: WordTask) -> Tensor:
        """The words' logits and, where base clips are kept, alpha times those of the Gaussians."""
        if int(self.held) == 0:
            return task.text_logits
        weight, mean = self.gaussians(task.text)
        classes = torch.full_like(mean[:, :1, :1], mean.shape[1])
        logits = task.query @ weight.transpose(1, 2) + offsets(weight, mean, classes)
        return task.text_logits + self.settings.alpha * logits

    def gaussians(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """The weights P mu and the means mu of the classes, both [B, N, D], of weights of words [B, N, D].

        What a class adds to P rests on its own words. Where tasks share classes, each is asked once for all of them.
        """
        text = F.normalize(text, dim=-1)
        batch, ways, dim = text.shape
        words, place = torch.unique(text.flatten(0, 1), dim=0, return_inverse=True)
        if len(words) ** 2 > batch * ways**2:
            mean, away = self.stand_ins(text)
            return self.times_precision(mean, away), mean
        mean, away = (part[0] for part in self.stand_ins(words[None]))
        each = self.times_each(mean.expand(len(words), -1, dim), away)  # by whose precision, of whose mean
        place = place.view(batch, ways)
        return each[place[:, :, None], place[:, None]].mean(1), mean[place]

    def stand_ins(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """The means [B, N, D] of the clips that stand in for classes, and these clips' deviations [B, N, k, D].

        Deviations are those from the words, text [B, N, D], of length one.
        """
        near = self.nearest(text)
        count, copies = near.shape[2], self.settings.copies
        return (near.sum(2) + copies * text) / (count + copies), near - text[:, :, None]

    def nearest(self, text: Tensor) -> Tensor:
        """The base clips [B, N, k, D] with the greatest cosines to weights of words [B, N, D]."""
        base = self.base[: int(self.held)].to(text)
        count = min(self.settings.neighbours, len(base))
        return base[(text @ base.T).topk(count, -1).indices]

    @classmethod
    def times_precision(cls, x: Tensor, away: Tensor) -> Tensor:
        """x P [B, M, D], where P is the mean over classes of their precisions.

        x: [B, M, D]; away: deviations [B, N, k, D] of the clips of a class from its words.
        """
        batch, classes = away.shape[:2]
        each = cls.times_each(x.repeat_interleave(classes, 0), away.flatten(0, 1))
        return each.unflatten(0, (batch, classes)).mean(1)

    @staticmethod
    def times_each(x: Tensor, away: Tensor) -> Tensor:
        """x P_c [C, M, D] with the precision P_c of each class, of x [C, M, D] and deviations [C, k, D]."""
        trace = away.square().sum((1, 2))[:, None, None] / max(away.shape[1] - 1, 1)
        return shrunk_precision(away, trace.clamp(min=1e-12)).apply(x)


def _taking_turns(label: Tensor) -> Tensor:
    """An order of clips with these labels [n] in which the classes take turns, each in its own order."""
    member = F.one_hot(label)
    turn = (member.cumsum(0) * member).sum(1)
    return torch.argsort(turn, stable=True)
