"""Work that is done once for every clip of a test, over all modalities that the clip has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from .episode_test import EpisodeTest
from .once_per_clip import KEPT_AT_ONCE, KEPT_BYTES, bytes_of, joined, taken
from .shortcut import Scorer

E = TypeVar("E")


class Surroundings(NamedTuple):
    """What surrounds the encoded clips of B tasks: which classes these are, and which clips have any modality."""

    class_id: Tensor
    """The index of each class in the label set, int64 [B, N]."""
    words: Tensor | None
    """The class words, [B, N, E], or None."""
    support_present: Tensor
    """Which supports have any modality, bool [B, N, K]; K is 0 without supports."""
    query_present: Tensor
    """Which queries have any modality, bool [B, Q]."""

    @classmethod
    def of(cls, episodes: Episodes) -> Surroundings:
        """The surroundings of the clips of a batch of tasks."""
        support = [s.present for s in episodes.support.values()] if episodes.shots else []
        query = torch.stack([s.present for s in episodes.query.values()]).any(0)
        none = torch.zeros(*episodes.class_id.shape, 0, dtype=torch.bool, device=query.device)
        return cls(episodes.class_id, episodes.words, torch.stack(support).any(0) if support else none, query)


@dataclass(frozen=True, kw_only=True)
class OncePerWholeClip(Generic[E]):
    """Each clip, with all its modalities, is encoded once; an episode only compares encodings.

    encode: clips [n, T, D] by modality; compare: logits [B, Q, N] of encoded supports [B, N, K, ...], encoded queries
    [B, Q, ...] and what surrounds them. share: the share of the direct way's work that encoding is taken to be.
    """

    encode: Callable[[Mapping[str, Stream]], E]
    compare: Callable[[E | None, E, Surroundings], Tensor]
    share: float = 0.5

    def saves(self, test: EpisodeTest) -> float:
        """Nothing where the episodes draw fewer clips than there are, or the encodings would fill the memory."""
        if not test.complete or test.clips_drawn < len(test.bank):
            return 0.0
        return self.share * (1 - len(test.bank) / (test.clips_drawn + 1)) if self.fits(test.bank) else 0.0

    @torch.no_grad()
    def fits(self, bank: FeatureBank) -> bool:
        """Whether the encodings of all clips take no more memory than ``KEPT_BYTES``, by that of one clip."""
        one = torch.zeros(1, dtype=torch.int64, device=bank.device)
        return len(bank) * bytes_of(self._encoded(bank, one)) <= KEPT_BYTES

    @torch.no_grad()
    def prepare(self, test: EpisodeTest) -> Scorer:
        bank = test.bank
        rows = torch.arange(len(bank), device=bank.device).split(KEPT_AT_ONCE)
        clips = joined([self._encoded(bank, part) for part in rows])

        def score(index: EpisodeIndex) -> Tensor:
            support, query, classes = (x.to(bank.device) for x in (index.support, index.query, index.classes))
            around = Surroundings(
                bank.class_id[classes],
                None if bank.words is None else bank.words[classes],
                torch.ones_like(support, dtype=torch.bool),
                torch.ones_like(query, dtype=torch.bool),
            )
            return self.compare(taken(clips, support), taken(clips, query), around)

        return Scorer(score)

    def _encoded(self, bank: FeatureBank, rows: Tensor) -> Any:
        """The encodings of the clips at ``rows`` [n]."""
        return self.encode({m: table.gather(rows) for m, table in bank.tables.items()})
