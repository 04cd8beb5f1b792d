"""Heads whose work divides in two: what is done to each clip by itself, and what is done in each episode."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic, TypeVar

from torch import Tensor

from ..episodes.batch import Episodes, Stream
from .head import Head, S
from .parts.absence import neutral
from .parts.context import TaskContext
from .parts.tensors import single
from .scoring.once_per_clip import OncePerClip
from .scoring.shortcut import Shortcut

E = TypeVar("E")
Q = TypeVar("Q")


class EncodingHead(Head[S], Generic[S, E, Q]):
    """A head of one modality that encodes every clip by itself and then compares encodings.

    E is how a support is encoded and Q a query: a tensor with the clips on its leading axes, or a named tuple or list
    of such. ``forward`` and the shortcut that encodes each clip of a test once are made of the same two steps, so they
    cannot drift apart.
    """

    def encode(self, clips: Stream) -> E:
        """Clips [..., T, D], of any number of leading axes, as supports are compared."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def encode_query(self, clips: Stream) -> Q:
        """Clips [..., T, D] as queries are compared; as supports unless a head says otherwise."""
        encoding: Any = self.encode(clips)
        return encoding  # type-checked where a head names E and Q

    def compare(self, support: E, query: Q, context: TaskContext) -> Tensor:
        """Logits [B, Q, N] of encoded supports [B, N, K, ...] and queries [B, Q, ...].

        Absent supports are to be left out by ``context.support_present``; what is said of absent queries and of classes
        without a support does not matter, ``forward`` makes it neutral.
        """
        raise TypeError(f"{type(self).__name__} does not define compare")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        support, query = single(episodes)
        context = TaskContext(support.present, query.present, episodes.words)
        logits = self.compare(self.encode(support), self.encode_query(query), context)
        return neutral(logits, context.query_present, context.class_present)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip of a test is encoded once."""
        return (self.once_per_clip(),)

    def once_per_clip(self) -> OncePerClip[E, Q]:
        """The shortcut that encodes each clip of a test once."""
        differs = type(self).encode_query is not EncodingHead.encode_query
        return OncePerClip(
            encode=self.encode, compare=self.compare, encode_query=self.encode_query if differs else None
        )
