"""A matching of clips that base and val classes choose: their mean, Chamfer++, an ordered alignment, or the last two.

Whether time matters depends on the data: where classes differ in the order of what is seen, an alignment wins, and it
costs accuracy elsewhere. The matchings are those of Bertrand et al. (SCIA 2023, see ``chamfer``), of which nothing is
learned, and each is tried on the same episodes of base classes, and of val classes where there are any. Chamfer++, the
best of them in the paper, stays unless another is surely better there. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.gather import materialise
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex, Sampler
from ..decided import Decided
from ..head import Head, Inputs
from ..parts.steps import at_most
from ..scoring.episode_test import EpisodeTest
from ..scoring.shortcut import Scorer, Shortcut
from ..settings import Count, Settings
from .chamfer import Chamfer, ChamferSettings, Matching

MATCHINGS: tuple[Matching, ...] = ("mean", "chamfer++", "otam")
CANDIDATES: tuple[tuple[Matching, ...], ...] = (("mean",), ("chamfer++",), ("otam",), ("chamfer++", "otam"))
"""What is tried: the matchings whose logits decide together."""
NAMES = tuple(" and ".join(candidate) for candidate in CANDIDATES)
DEFAULT = NAMES.index("chamfer++")
SURE = 1.96
"""How many standard errors another candidate must be above the default; they are over classes, as novel ones differ."""
PARTS: tuple[Literal["base", "val"], ...] = ("base", "val")
QUERIES, AT_ONCE = 15, 20
STEPS = 16
"""The steps at which longer clips are tried: the tuples of Chamfer++ grow with the third power of their number."""
SHOTS = 5
"""The supports of a class where those of the evaluated episodes vary."""
SEED = 77_019  # The episodes of the choice share no draws with those of validation or the test.


@dataclass(frozen=True)
class AutoTemporalSettings(Settings):
    """The settings of the choice."""

    episodes: Count = 300
    """Episodes of base classes on which the matchings are tried, and as many of val classes."""


class AutoTemporal(Head[AutoTemporalSettings]):
    """The matching that is most accurate on base and val classes, among those that are surely better than Chamfer++.

    It is Chamfer++ where none is, and where neither part of the classes can serve an episode. Where both can, the mean
    of the two accuracies counts: val classes are fewer, but no statistics come from them.
    """

    Settings = AutoTemporalSettings
    decided: ClassVar[Mapping[str, Decided]] = {"matching": Decided(on="base and val")}
    choice: Tensor
    base_accuracy: Tensor
    val_accuracy: Tensor
    base_error: Tensor
    val_error: Tensor

    def __init__(self, inputs: Inputs, settings: AutoTemporalSettings) -> None:
        super().__init__(inputs, settings)
        self.matchings = nn.ModuleDict({each: Chamfer(inputs, _only(each)) for each in MATCHINGS})
        self.register_buffer("choice", torch.tensor(DEFAULT))
        for part in PARTS:
            for what in ("accuracy", "error"):
                self.register_buffer(f"{part}_{what}", torch.full((len(CANDIDATES),), math.nan))

    @property
    def deciding(self) -> list[Chamfer]:
        """The matchings that were chosen."""
        found = [self.matchings[each] for each in CANDIDATES[int(self.choice)]]
        return [each for each in found if isinstance(each, Chamfer)]

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        return together([matching(episodes) for matching in self.deciding])

    def shortcuts(self) -> Iterable[Shortcut]:
        """Those of the chosen matching, or a way of each of two."""
        first, *others = self.deciding
        return (Together((first, *others)),) if others else first.shortcuts()

    def fit_base(self, base: FeatureBank) -> None:
        """Tries every candidate on the same episodes of base classes and chooses."""
        self._try_on(base, "base")

    def fit_val(self, val: FeatureBank) -> None:
        """Tries every candidate on the same episodes of val classes, too, and chooses by both."""
        self._try_on(val, "val")

    @torch.no_grad()
    def _try_on(self, bank: FeatureBank, part: Literal["base", "val"]) -> None:
        """The accuracy of each candidate on one part of the classes, and the choice by all parts that were tried."""
        task = self._protocol(bank, part)
        if task is None:
            return
        classes = len(bank.class_names)
        right, asked = torch.zeros(len(CANDIDATES), classes), torch.zeros(classes)
        for index in Sampler(bank, task).batches(0, self.settings.episodes, AT_ONCE):
            episodes = _shortened(materialise(bank, index, task))
            logits = {name: matching(episodes) for name, matching in self.matchings.items()}
            each = [together([logits[name] for name in candidate]) for candidate in CANDIDATES]
            hit = (torch.stack(each).argmax(-1) == episodes.query_label).flatten(1).float().cpu()
            label = index.classes.gather(1, index.query_label).flatten()
            right.index_add_(1, label, hit)
            asked.index_add_(0, label, torch.ones(len(label)))
        accuracy = (right / asked)[:, asked > 0].double()  # [candidates, classes]
        above = accuracy - accuracy[DEFAULT]
        getattr(self, f"{part}_accuracy").copy_(accuracy.mean(1))
        getattr(self, f"{part}_error").copy_(above.std(1) / above.shape[1] ** 0.5)
        self.choice.copy_(self._most_accurate())

    def _most_accurate(self) -> Tensor:
        """The number of the most accurate candidate among the default and those that are surely better."""
        errors = torch.stack([self.base_error, self.val_error])
        error = errors.square().nansum(0).sqrt() / errors.isfinite().any(1).sum()
        surely = self.accuracy - self.accuracy[DEFAULT] > SURE * error
        surely[DEFAULT] = True
        return self.accuracy.masked_fill(~surely, -1.0).argmax()

    @property
    def accuracy(self) -> Tensor:
        """The accuracy of each candidate, the mean over the parts on which they were tried; NaN where on none."""
        return torch.stack([self.base_accuracy, self.val_accuracy]).nanmean(0)

    def _protocol(self, bank: FeatureBank, part: Literal["base", "val"]) -> Protocol | None:
        """Episodes like the evaluated ones as far as the classes allow; None where they do not."""
        counts, shot = bank.counts(), self.inputs.shot or SHOTS
        shot = max(min(shot, int(np.quantile(counts, 0.25)) - 1), 1)
        queries = max(min(QUERIES, int(np.quantile(counts, 0.25)) - shot), 1)
        usable = int((counts >= shot + queries).sum())
        if bank.multi or usable < 2:
            return None
        way = min(self.inputs.way, usable)
        return Protocol(
            n_way=way, k_shot=shot, n_query=queries, split=part, seed=SEED, small_classes="exclude"
        )

    def chosen(self) -> dict[str, Any]:
        """The matching, and the accuracy of each on base and on val classes where they were tried."""
        found: dict[str, Any] = {"matching": NAMES[int(self.choice)]}
        for part, accuracy in zip(PARTS, (self.base_accuracy, self.val_accuracy)):
            if bool(accuracy.isfinite().all()):
                found |= {
                    f"{part} accuracy of {name}": value for name, value in zip(NAMES, accuracy.tolist())
                }
        return found

    def notes(self) -> list[str]:
        """That there was no choice, where neither base nor val classes could serve it."""
        if bool(self.accuracy.isfinite().all()):
            return []
        return [
            "The base and val classes are too few, or have several labels a clip, to choose a matching; it is "
            "chamfer++."
        ]


@dataclass(frozen=True)
class Together:
    """The best way to the logits of each of several matchings, which decide together."""

    matchings: tuple[Chamfer, ...]

    def saves(self, test: EpisodeTest) -> float:
        """What the way saves that saves least."""
        return min(max(way.saves(test) for way in each.shortcuts()) for each in self.matchings)

    def prepare(self, test: EpisodeTest) -> Scorer:
        """A scorer by the best way of each matching."""
        best = [max(each.shortcuts(), key=lambda way: way.saves(test)) for each in self.matchings]
        scorers = [way.prepare(test) for way in best]

        def score(index: EpisodeIndex) -> Tensor:
            return together([scorer(index) for scorer in scorers])

        return Scorer(score)


def together(logits: Sequence[Tensor]) -> Tensor:
    """The mean of logits [B, Q, N] whose spreads over the classes of a query are that of the first."""
    first, *others = logits
    if not others:
        return first
    centred = [each - each.mean(-1, keepdim=True) for each in logits]
    spread = [each.square().mean(-1, keepdim=True).sqrt() for each in centred]
    scaled = [each * (spread[0] / own.clamp(min=1e-6)) for each, own in zip(centred, spread)]
    return torch.stack(scaled).mean(0)


def _only(matching: Matching) -> ChamferSettings:
    return ChamferSettings(matching=matching)


def _shortened(episodes: Episodes) -> Episodes:
    """The same tasks with clips of no more than ``STEPS`` steps."""
    support, query = (
        {m: at_most(clips, STEPS) for m, clips in side.items()} for side in (episodes.support, episodes.query)
    )
    return replace(episodes, support=support, query=query)
