"""A head asked about each query with the modalities that the query has, of supports that carry no others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...episodes.gather import filled
from ..head import Head
from ..settings import Settings


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What stands in for modalities that clips of matched queries lack, as substitutes of the bank of the episodes."""

    supports: FeatureBank
    """The bank whose substitutes fill supports with what a query has and they lack."""
    shared: FeatureBank
    """The bank whose substitutes fill both sides with what a query lacks, from what the clip shares with the query."""


class MatchedHead(Head[Settings]):
    """Any head, for tests whose queries lack modalities: a query that lacks one meets supports that lack it, too.

    The episode is decided once for each set of modalities that one of its queries has, and each query takes the logits
    of its own set. A transductive head sees all queries of the episode with that set of modalities. Where a protocol
    gives the two sides different modalities, those that both have count.

    estimates: what stands in for modalities that clips lack, so that supports and a query carry the same function of
    what they share; the episodes then come with nothing filled in, so that it is known what each clip has. None leaves
    what is lacking absent.
    """

    def __init__(self, inner: Head[Any], estimates: Estimates | None = None) -> None:
        super().__init__(inner.inputs, Settings())
        self.inner = inner
        self.estimates = estimates

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        if self.estimates is None:
            episodes = _shared(episodes)
        names = list(episodes.query)
        code = sum(
            (episodes.query[m].present.long() << i for i, m in enumerate(names)), start=torch.zeros(())
        )
        logits: Tensor | None = None
        for pattern in code.long().unique().tolist():
            kept = {m for i, m in enumerate(names) if pattern >> i & 1} or set(names)
            part: Tensor = self.inner(self._seen_by(episodes, kept))
            here = (code == pattern)[..., None]
            logits = part if logits is None else torch.where(here, part, logits)
        assert logits is not None, "an episode has a query"
        return logits

    def _seen_by(self, episodes: Episodes, kept: set[str]) -> Episodes:
        """The episodes as queries with the modalities ``kept`` see them."""
        reduced = _reduced(episodes, kept)
        if self.estimates is None:
            return reduced
        rows = (episodes.support_row, episodes.query_row)
        assert rows[0] is not None, "episodes of a bank say where their supports are"
        assert rows[1] is not None, "episodes of a bank say where their queries are"
        whole = {m: _own(s) for m, s in episodes.support.items()}
        supports = filled(self.estimates.supports, rows[0], whole, "support")
        estimated = filled(self.estimates.shared, rows[0], reduced.support, "support")
        estimated |= {m: s for m, s in supports.items() if m in kept}
        shared = self.estimates.shared
        return replace(
            reduced,
            support={m: estimated[m] for m in shared.tables if m in estimated},
            query=filled(shared, rows[1], reduced.query, "query"),
        )

    def chosen(self) -> dict[str, Any]:
        return self.inner.chosen()

    def notes(self) -> list[str]:
        return self.inner.notes()


def _shared(episodes: Episodes) -> Episodes:
    """The episodes with the modalities that both sides carry, or as they are where there is none."""
    shared = [m for m in episodes.query if m in episodes.support]
    if not shared:
        return episodes
    support, query = ({m: side[m] for m in shared} for side in (episodes.support, episodes.query))
    return replace(episodes, support=support, query=query)


def _reduced(episodes: Episodes, kept: set[str]) -> Episodes:
    """The episodes in which every clip lacks all modalities but ``kept``, of which clips that are whole are shared."""
    support = {m: _own(s) if m in kept else _absent(s) for m, s in episodes.support.items()}
    query = {m: _own(s) if m in kept else _absent(s) for m, s in episodes.query.items()}
    return replace(episodes, support=support, query=query)


def _own(stream: Stream) -> Stream:
    """The clips as they are, in tensors of their own where some clip lacks the modality and may have it filled in."""
    if bool(stream.present.all()):
        return stream
    return Stream(stream.x.clone(), stream.present.clone(), stream.length.clone())


def _absent(stream: Stream) -> Stream:
    return Stream(
        torch.zeros_like(stream.x), torch.zeros_like(stream.present), torch.zeros_like(stream.length)
    )
