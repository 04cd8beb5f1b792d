"""Shortcuts of heads that are built of other heads: each inner head is asked for its own best way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import Table, TensorTable
from ...episodes.sampler import EpisodeIndex
from ..head import Head
from .episode_test import EpisodeTest
from .plan import best_shortcut, scorer
from .shortcut import Scorer


@dataclass(frozen=True, kw_only=True)
class OverMappedBank:
    """The whole bank is mapped once to what the inner head reads, which then scores the test in its own best way.

    tables: what the inner head reads of a bank. inner: the head.
    """

    tables: Callable[[FeatureBank], Mapping[str, Table]]
    inner: Head[Any]

    def saves(self, test: EpisodeTest) -> float:
        """Mapping the clips of every episode, where mapping them all at once gives the same."""
        held = all(isinstance(table, TensorTable) for table in test.bank.tables.values())
        return 0.5 if held and test.withholds_nothing else 0.0

    def prepare(self, test: EpisodeTest) -> Scorer:
        return scorer(self.inner, test.over(self.tables(test.bank)))


@dataclass(frozen=True, kw_only=True)
class JoinedBranches:
    """Every branch scores the test in its own best way, and the branches' logits are joined.

    heads: by branch. tables: what a branch reads of a bank. join: logits [B, Q, N] of those of every branch.
    """

    heads: Mapping[str, Head[Any]]
    tables: Callable[[FeatureBank, str], Mapping[str, Table]]
    join: Callable[[Mapping[str, Tensor]], Tensor]
    maps_clips: bool = False
    """Whether ``tables`` does work for every clip, which is saved even where no branch has a shortcut."""

    def saves(self, test: EpisodeTest) -> float:
        """The most that a branch saves, where every clip has every branch's modality."""
        if not test.complete or (self.maps_clips and test.clips_drawn < len(test.bank)):
            return 0.0
        if self.maps_clips:
            return 0.5
        ways = {b: (best_shortcut(h, t), t) for b, h in self.heads.items() for t in [self._test(test, b)]}
        return max((way.saves(t) for way, t in ways.values() if way is not None), default=0.0)

    def prepare(self, test: EpisodeTest) -> Scorer:
        each = {branch: scorer(head, self._test(test, branch)) for branch, head in self.heads.items()}

        def score(index: EpisodeIndex) -> Tensor:
            return self.join({branch: part(index) for branch, part in each.items()})

        return Scorer(score)

    def _test(self, test: EpisodeTest, branch: str) -> EpisodeTest:
        return test.over(self.tables(test.bank, branch))
