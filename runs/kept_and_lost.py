"""Tests that differ in the rate at which queries lose a modality alone: what is the same for all rates is done once.

An inductive head decides each query alone, and a query that keeps the modality, or has lost it, is the same query at
every rate. So the classes that a head predicts for queries with the modality and for queries without it are found once
each, and a rate says which of the two counts for a query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.bank import FeatureBank
from ..episodes.gather import dropped
from ..episodes.protocol import Missing, Protocol
from ..episodes.sampler import EpisodeIndex, Sampler
from ..heads.head import Head
from ..machine.local_engine import share
from .evaluate import Block, Scoring, Tally, blocks, chunks, evaluated, workers_of
from .evaluation import Evaluation
from .extent import Extent, planned
from .filling_choice import Filled
from .measure import whole_split

_AT_ONCE = 512  # The episodes of which predictions are put together at once.


class KeptAndLost:
    """The predictions of a head for queries that keep a modality and for queries that have lost it.

    modality: what queries lose. All tests must be of one head and, for the same clips, of one protocol but for the
    rate; they are told apart by their clips and by what these are filled with.
    """

    def __init__(self, modality: str) -> None:
        self.modality = modality
        self._found: dict[tuple[int, object, float], Predictions] = {}

    def serves(self, protocol: Protocol, bank: FeatureBank, *, transductive: bool) -> bool:
        """Whether tests can be put together: each query is decided alone, and loses this modality and no other."""
        alone = [(loss.modality, loss.side) for loss in protocol.missing] == [(self.modality, "query")]
        carried = self.modality in (protocol.query_modalities or bank.tables)
        whole = whole_split(protocol) or protocol.generalised or bank.multi
        return alone and carried and not (transductive or whole or protocol.replay)

    def evaluate(
        self,
        test: Filled,
        protocol: Protocol,
        episodes: Extent,
        *,
        unlabelled: FeatureBank | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Evaluation:
        """The evaluation of a test that ``serves`` accepts; it is that of ``runs.evaluate`` but for rounding."""
        (loss,) = protocol.missing
        common: dict[str, Any] = {"protocol": protocol, "episodes": episodes, "unlabelled": unlabelled}
        kept = self._predictions(_kept(test, protocol), rate=0.0, **common)
        lost = self._predictions(test, rate=1.0, **common) if loss.rate else None
        scoring = _AtRate.of_both(kept, lost, test.bank, protocol)
        return evaluated(scoring, episodes, first=0, progress=progress, workers=None, transductive=False)

    def _predictions(
        self,
        test: Filled,
        *,
        protocol: Protocol,
        rate: float,
        episodes: Extent,
        unlabelled: FeatureBank | None,
    ) -> Predictions:
        """The predictions for queries that all keep the modality (rate 0) or have all lost it (rate 1)."""
        missing = (Missing(self.modality, rate, "query"),) if rate else ()
        key = (id(test.clips), test.pair, rate)
        if key not in self._found:
            scoring = Scoring.of(
                test.head,
                test.bank,
                replace(protocol, missing=missing),
                planned(episodes),
                first=0,
                unlabelled=unlabelled,
            )
            self._found[key] = Predictions(clips=test.clips, head=test.head, scoring=scoring)
        return self._found[key]


def _kept(test: Filled, protocol: Protocol) -> Filled:
    """The test for queries that keep the modality, without what is filled in where no clip lacks anything."""
    named = (protocol.support_modalities, protocol.query_modalities) != (None, None)
    if named or not all(table.all_present for table in test.clips.tables.values()):
        return test
    return Filled(head=test.own_head, bank=test.clips)


@dataclass(kw_only=True)
class Predictions:
    """The classes that a head predicts in the first episodes of a test, which are found when they are asked for."""

    clips: FeatureBank
    """The clips of the test, which are kept alive since tests are told apart by them."""
    head: Head
    """The head."""
    scoring: Scoring
    """What scores the episodes."""
    way: np.ndarray | None = None
    """int16 [E, Q], the place in the episode of the class that is predicted for each query; None before any is known.

    Q is the most queries of an episode."""
    seconds: float = 0.0
    """The time in which they were found."""

    def extend(self, episodes: int, workers: int | None, progress: Callable[[int], None] | None) -> bool:
        """Find the predictions of so many episodes; whether any was lacking."""
        first = 0 if self.way is None else len(self.way)
        if episodes <= first:
            return False
        started, cores = time.perf_counter(), workers or workers_of(self.clips)
        self.head.eval()
        wanted = blocks(self.scoring.sampler, first, episodes - first, self.scoring.chunk, workers=cores)
        made = share(self._work, list(wanted), cores, forked=self.scoring.forked, progress=progress)
        found = [pair for part in made for pair in part]
        width = max(0 if self.way is None else self.way.shape[1], *(way.shape[1] for _, way in found))
        grown = np.zeros((episodes, width), np.int16)
        for episode, way in [*found, *([] if self.way is None else [(np.arange(first), self.way)])]:
            grown[episode, : way.shape[1]] = way
        self.way = grown
        self.seconds += time.perf_counter() - started
        return True

    @torch.no_grad()
    def _work(
        self, part: Sequence[Block], tick: Callable[[int], None]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """The numbers [b] of the episodes of each block, and the predictions [b, Q]."""
        found = []
        for block in part:
            index, ways = block.draw(self.scoring.sampler), []
            for some in chunks(index, self.scoring.chunk):
                ways.append(self.scoring.score(some).argmax(-1).to("cpu", torch.int16))
                tick(len(some))
            found.append((block.episode, torch.cat(ways).numpy()))
        return found


@dataclass
class _AtRate(Scoring):
    """The scoring of episodes whose queries lose the modality at a rate, from predictions that are there."""

    kept: Predictions
    """The predictions for queries with the modality."""
    lost: Predictions | None
    """The predictions for queries without it; None at rate 0."""

    @classmethod
    def of_both(
        cls, kept: Predictions, lost: Predictions | None, bank: FeatureBank, protocol: Protocol
    ) -> _AtRate:
        """The scoring of a protocol over a bank."""
        sampler = Sampler(bank, protocol, kept.scoring.sampler.pool)

        def score(index: EpisodeIndex) -> Tensor:
            """1 at the predicted class and 0 at the others, [B, Q, N]."""
            way = _at(kept, index)
            if lost is not None:
                way = torch.where(_loses(bank, index, protocol), _at(lost, index), way)
            return F.one_hot(way.long(), index.classes.shape[1])

        return cls(sampler=sampler, score=score, chunk=_AT_ONCE, forked=False, kept=kept, lost=lost)

    def tally(
        self, first: int, episodes: int, workers: int | None, progress: Callable[[int], None] | None
    ) -> Tally:
        """The tally of the episodes first .. first+episodes-1, of which the predictions are found where they lack."""
        told = self.kept.extend(first + episodes, workers, None if self.lost else progress)
        if self.lost is not None:
            told = self.lost.extend(first + episodes, workers, progress)
        return super().tally(first, episodes, 1, None if told else progress)

    def evaluation(self, total: Tally, *, first: int, started: float, transductive: bool) -> Evaluation:
        """The evaluation of a tally; its time is that in which its predictions were found, in whichever test."""
        found = super().evaluation(total, first=first, started=started, transductive=transductive)
        source = self.lost or self.kept
        return replace(found, seconds=source.seconds, chunk=source.scoring.chunk)


def _at(predictions: Predictions, index: EpisodeIndex) -> Tensor:
    """The predicted classes [B, Q] of some episodes."""
    assert predictions.way is not None, "they are found before they are asked for"
    return torch.from_numpy(predictions.way[index.episode.numpy(), : index.query.shape[1]])


def _loses(bank: FeatureBank, index: EpisodeIndex, protocol: Protocol) -> Tensor:
    """Whether each query loses the modality, bool [B, Q]."""
    (loss,) = protocol.missing
    names = protocol.query_modalities or tuple(bank.tables)
    rows = index.query.clamp(min=0)
    present = {name: bank.tables[name].present.cpu()[rows].numpy() for name in names}
    lost = dropped(bank=bank, index=index, rows=index.query, protocol=protocol, side="query", present=present)
    return torch.from_numpy(lost[loss.modality])
