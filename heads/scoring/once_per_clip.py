"""Work that is done once for every clip of a test, however often episodes draw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ...episodes.sampler import EpisodeIndex
from ..parts.context import TaskContext
from .episode_test import EpisodeTest
from .shortcut import Scorer

KEPT_BYTES = 2 << 30  # Encodings of a whole split that take more memory than this are not kept.
KEPT_AT_ONCE = 256  # Clips that are encoded at once.

E = TypeVar("E")
Q = TypeVar("Q")


def in_parts(bank: FeatureBank) -> Iterator[Stream]:
    """All clips of a bank of one modality, some hundreds at a time."""
    (table,) = bank.tables.values()
    for rows in torch.arange(len(bank), device=bank.device).split(KEPT_AT_ONCE):
        yield table.gather(rows)


def joined(parts: Sequence[Any]) -> Any:
    """Encodings of several groups of clips, one after another (see :class:`OncePerClip` for what an encoding is)."""
    first = parts[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat(list(parts))
    each = [joined(of_all) for of_all in zip(*parts)]
    return each if isinstance(first, list) else type(first)(*each)


def taken(encoding: Any, rows: Tensor) -> Any:
    """The encodings of the clips at ``rows``, which may have any shape."""
    if encoding is None or isinstance(encoding, Tensor):
        return None if encoding is None else encoding[rows]
    each = [taken(part, rows) for part in encoding]
    return each if isinstance(encoding, list) else type(encoding)(*each)


def bytes_of(encoding: Any) -> int:
    """The memory that an encoding takes."""
    if encoding is None or isinstance(encoding, Tensor):
        return 0 if encoding is None else encoding.numel() * encoding.element_size()
    return sum(bytes_of(part) for part in encoding)


@dataclass(frozen=True, kw_only=True)
class OncePerClip(Generic[E, Q]):
    """Each clip is encoded once; an episode only compares encodings.

    An encoding is a tensor [n, ...], or a named tuple or list of encodings; one that is None stands for nothing.
    encode: clips as supports, from a Stream [n, T, D]; encode_query: as queries, None where that is the same.
    compare: logits [B, Q, N] of encoded supports [B, N, K, ...], encoded queries [B, Q, ...] and the context.
    share: the share of the direct way's work that encoding is taken to be.
    """

    encode: Callable[[Stream], E]
    compare: Callable[[E, Q, TaskContext], Tensor]
    encode_query: Callable[[Stream], Q] | None = None
    share: float = 0.1

    def saves(self, test: EpisodeTest) -> float:
        """Nothing where the episodes draw fewer clips than there are, or the encodings would fill the memory."""
        if not test.complete or len(test.bank.tables) != 1 or test.clips_drawn < len(test.bank):
            return 0.0
        return self.share * (1 - len(test.bank) / (test.clips_drawn + 1)) if self.fits(test.bank) else 0.0

    @torch.no_grad()
    def fits(self, bank: FeatureBank) -> bool:
        """Whether the encodings of all clips take no more memory than ``KEPT_BYTES``, by that of one clip."""
        (table,) = bank.tables.values()
        clip = table.gather(torch.zeros(1, dtype=torch.int64, device=bank.device))
        size = bytes_of(self.encode(clip))
        size += 0 if self.encode_query is None else bytes_of(self.encode_query(clip))
        return len(bank) * size <= KEPT_BYTES

    def prepare(self, test: EpisodeTest) -> Scorer:
        support, query, words = *self.encodings(test.bank), test.bank.words
        device = test.bank.device

        def score(index: EpisodeIndex) -> Tensor:
            rows, asked = index.support.to(device), index.query.to(device)
            said = None if words is None else words[index.classes.to(device)]
            return self.compare(taken(support, rows), taken(query, asked), all_present(rows, asked, said))

        return Scorer(score)

    @torch.no_grad()
    def encodings(self, bank: FeatureBank) -> tuple[E, Q]:
        """All clips as supports and as queries."""
        support = joined([self.encode(clips) for clips in in_parts(bank)])
        if self.encode_query is None:
            return support, support
        return support, joined([self.encode_query(clips) for clips in in_parts(bank)])

    def pair_scores(self, bank: FeatureBank) -> Callable[[Tensor, Tensor], Tensor]:
        """A function from rows of queries [r] and of one-shot supports [c] to their logits [r, c]."""
        support, query = self.encodings(bank)

        def score(rows: Tensor, columns: Tensor) -> Tensor:
            one, many = columns[None, :, None], rows[None]
            return self.compare(taken(support, one), taken(query, many), all_present(one, many, None))[0]

        return score


def all_present(support: Tensor, query: Tensor, words: Tensor | None) -> TaskContext:
    """The context of episodes of supports [B, N, K] and queries [B, Q] none of which is absent."""
    return TaskContext(
        torch.ones_like(support, dtype=torch.bool), torch.ones_like(query, dtype=torch.bool), words
    )
