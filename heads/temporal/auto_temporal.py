"""A matching of clips that base and val classes choose: their mean, Chamfer++ or an ordered alignment.

Whether time matters depends on the data: where classes differ in the order of what is seen, an alignment wins, and it
costs accuracy elsewhere. The matchings are those of Bertrand et al. (SCIA 2023, see ``chamfer``), of which nothing is
learned, and each is tried on the same episodes of base classes, and of val classes where there are any. Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.gather import materialise
from ...episodes.protocol import Protocol
from ...episodes.sampler import Sampler
from ..decided import Decided
from ..head import Head, Inputs
from ..parts.steps import at_most
from ..scoring.shortcut import Shortcut
from ..settings import Count, Settings
from .chamfer import Chamfer, ChamferSettings, Matching

CANDIDATES: tuple[Matching, ...] = ("mean", "chamfer++", "otam")
PARTS: tuple[Literal["base", "val"], ...] = ("base", "val")
QUERIES, AT_ONCE = 5, 20
STEPS = 16
"""The steps at which longer clips are tried: the tuples of Chamfer++ grow with the third power of their number."""
SHOTS = 5
"""The supports of a class where those of the evaluated episodes vary."""
SEED = 77_019  # The episodes of the choice share no draws with those of validation or the test.


@dataclass(frozen=True)
class AutoTemporalSettings(Settings):
    """The settings of the choice."""

    episodes: Count = 200
    """Episodes of base classes on which the matchings are tried, and as many of val classes."""


class AutoTemporal(Head[AutoTemporalSettings]):
    """The matching that is most accurate on base and val classes; Chamfer++ where neither can serve an episode.

    Where both can, the mean of the two accuracies counts: val classes are fewer, but no statistics come from them.
    """

    Settings = AutoTemporalSettings
    decided: ClassVar[Mapping[str, Decided]] = {"matching": Decided(on="base and val")}
    choice: Tensor
    base_accuracy: Tensor
    val_accuracy: Tensor

    def __init__(self, inputs: Inputs, settings: AutoTemporalSettings) -> None:
        super().__init__(inputs, settings)
        own = (ChamferSettings(matching=matching) for matching in CANDIDATES)
        self.candidates = nn.ModuleList(Chamfer(inputs, each) for each in own)
        self.register_buffer("choice", torch.tensor(CANDIDATES.index("chamfer++")))
        for part in PARTS:
            self.register_buffer(f"{part}_accuracy", torch.full((len(CANDIDATES),), math.nan))

    @property
    def matching(self) -> Chamfer:
        """The matching that was chosen."""
        found = self.candidates[int(self.choice)]
        assert isinstance(found, Chamfer)
        return found

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        logits: Tensor = self.matching(episodes)
        return logits

    def shortcuts(self) -> Iterable[Shortcut]:
        """Those of the chosen matching."""
        return self.matching.shortcuts()

    def fit_base(self, base: FeatureBank) -> None:
        """Tries every matching on the same episodes of base classes and keeps the most accurate."""
        self._try_on(base, "base")

    def fit_val(self, val: FeatureBank) -> None:
        """Tries every matching on the same episodes of val classes, too, and chooses by both."""
        self._try_on(val, "val")

    @torch.no_grad()
    def _try_on(self, bank: FeatureBank, part: Literal["base", "val"]) -> None:
        """The accuracy of each matching on one part of the classes, and the choice by all parts that were tried."""
        task = self._protocol(bank, part)
        if task is None:
            return
        right, asked = torch.zeros(len(CANDIDATES), dtype=torch.int64), 0
        for index in Sampler(bank, task).batches(0, self.settings.episodes, AT_ONCE):
            episodes = _shortened(materialise(bank, index, task))
            for number, candidate in enumerate(self.candidates):
                right[number] += (candidate(episodes).argmax(-1) == episodes.query_label).sum().cpu()
            asked += episodes.query_label.numel()
        found = self.base_accuracy if part == "base" else self.val_accuracy
        found.copy_(right / max(asked, 1))
        self.choice.copy_(self.accuracy.argmax())

    @property
    def accuracy(self) -> Tensor:
        """The accuracy of each matching, the mean over the parts on which they were tried; NaN where on none."""
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
        found: dict[str, Any] = {"matching": CANDIDATES[int(self.choice)]}
        for part, accuracy in zip(PARTS, (self.base_accuracy, self.val_accuracy)):
            if bool(accuracy.isfinite().all()):
                found |= {
                    f"{part} accuracy of {name}": value for name, value in zip(CANDIDATES, accuracy.tolist())
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


def _shortened(episodes: Episodes) -> Episodes:
    """The same tasks with clips of no more than ``STEPS`` steps."""
    support, query = (
        {m: at_most(clips, STEPS) for m, clips in side.items()} for side in (episodes.support, episodes.query)
    )
    return replace(episodes, support=support, query=query)
