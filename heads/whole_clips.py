"""Heads of several modalities whose work divides in two: what is done to each clip, and what in each episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from torch import Tensor

from ..episodes.batch import Episodes, Stream
from ..errors import UsageError
from .head import Head, S
from .scoring.once_per_whole_clip import OncePerWholeClip, Surroundings
from .scoring.shortcut import Shortcut

E = TypeVar("E")


class WholeClipHead(Head[S], Generic[S, E]):
    """A head that encodes every clip, with all its modalities, by itself and then compares encodings.

    E is an encoding: a tensor with the clips on its leading axes, or a named tuple or list of such. ``forward`` and the
    shortcut that encodes each clip of a test once are made of the same two steps, so they cannot drift apart.
    """

    def encode(self, clips: Mapping[str, Stream]) -> E:
        """Clips [..., T, D] of any number of leading axes; a modality that they all lack may be left out."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def compare(self, support: E | None, query: E, around: Surroundings) -> Tensor:
        """Logits [B, Q, N] of encoded supports [B, N, K, ...], None where there are none, and queries [B, Q, ...]."""
        raise TypeError(f"{type(self).__name__} does not define compare")

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where a side carries none of the head's modalities."""
        support = self.encode(self._own(episodes.support)) if episodes.shots else None
        return self.compare(support, self.encode(self._own(episodes.query)), Surroundings.of(episodes))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip of a test is encoded once."""
        return (OncePerWholeClip(encode=self.encode, compare=self.compare),)

    def _own(self, streams: Mapping[str, Stream]) -> dict[str, Stream]:
        """The streams of the head's modalities."""
        held = {m: streams[m] for m in self.inputs.streams if m in streams}
        if not held:
            raise UsageError(
                f"This head was built for {', '.join(self.inputs.streams)}; none of them is in the task."
            )
        return held
