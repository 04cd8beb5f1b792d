"""A head asked about each query with the modalities that the query has, of supports that carry no others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...episodes.batch import Episodes, Stream
from ..head import Head
from ..settings import Settings


class MatchedHead(Head[Settings]):
    """Any head, for tests whose queries lack modalities: a query that lacks one meets supports that lack it, too.

    The episode is decided once for each set of modalities that one of its queries has, and each query takes the logits
    of its own set. A transductive head sees all queries of the episode with that set of modalities. Where a protocol
    gives the two sides different modalities, those that both have count.
    """

    def __init__(self, inner: Head[Any]) -> None:
        super().__init__(inner.inputs, Settings())
        self.inner = inner

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        episodes = _shared(episodes)
        names = list(episodes.query)
        code = sum(
            (episodes.query[m].present.long() << i for i, m in enumerate(names)), start=torch.zeros(())
        )
        logits: Tensor | None = None
        for pattern in code.long().unique().tolist():
            kept = {m for i, m in enumerate(names) if pattern >> i & 1} or set(names)
            part: Tensor = self.inner(_reduced(episodes, kept))
            here = (code == pattern)[..., None]
            logits = part if logits is None else torch.where(here, part, logits)
        assert logits is not None, "an episode has a query"
        return logits

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
    """The episodes in which every clip lacks all modalities but ``kept``."""
    support = {m: s if m in kept else _absent(s) for m, s in episodes.support.items()}
    query = {m: s if m in kept else _absent(s) for m, s in episodes.query.items()}
    return replace(episodes, support=support, query=query)


def _absent(stream: Stream) -> Stream:
    return Stream(
        torch.zeros_like(stream.x), torch.zeros_like(stream.present), torch.zeros_like(stream.length)
    )
