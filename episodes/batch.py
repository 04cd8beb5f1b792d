"""A batch of tasks: what heads receive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache.table import Stream
from ..errors import unknown

__all__ = ["Episodes", "Stream"]


@dataclass
class Episodes:
    """B tasks at once; N ways, K shots, Q queries, T steps, D features.

    support: per modality a Stream [B, N, K, T, D]; query: per modality a Stream [B, Q, T, D].
    query_label: int64 [B, Q] in 0..N-1, -1 for padding (a query that does not exist); or uint8 [B, Q, N] multi-hot.
    words: class-word vectors float [B, N, E], or None. class_id: int64 [B, N], indices in the label set.
    unlabelled: per modality a Stream [B, U, T, D] of clips without labels, or None.

    Two 3-way 1-shot tasks with four queries each, of clips with 8 steps of 16 numbers:

    >>> def clips(*shape: int) -> Stream:
    ...     return Stream(torch.zeros(*shape, 8, 16), torch.ones(shape).bool(), torch.full(shape, 8))
    >>> label, classes = torch.zeros(2, 4, dtype=torch.int64), torch.tensor([[4, 0, 7], [2, 7, 1]])
    >>> tasks = Episodes({"frame": clips(2, 3, 1)}, {"frame": clips(2, 4)}, label, classes)
    >>> tasks.batch, tasks.ways, tasks.shots, tasks.queries, tasks.modalities
    (2, 3, 1, 4, ['frame'])
    >>> tasks.slice(1, 2).class_id
    tensor([[2, 7, 1]])
    """

    support: dict[str, Stream]
    query: dict[str, Stream]
    query_label: Tensor
    class_id: Tensor
    words: Tensor | None = None
    unlabelled: dict[str, Stream] | None = None

    @property
    def batch(self) -> int:
        return self.class_id.shape[0]

    @property
    def ways(self) -> int:
        return self.class_id.shape[1]

    @property
    def shots(self) -> int:
        first = next(iter(self.support.values()), None)
        return 0 if first is None else first.present.shape[2]

    @property
    def queries(self) -> int:
        return self.query_label.shape[1]

    @property
    def multi(self) -> bool:
        return self.query_label.ndim == 3

    @property
    def device(self) -> torch.device:
        return self.class_id.device

    @property
    def modalities(self) -> list[str]:
        return list(self.query)

    def only(self, modalities: Sequence[str]) -> Episodes:
        """The same tasks with fewer modalities. Raises UsageError for one that is not there."""
        for name in modalities:
            if name not in self.query and name not in self.support:
                raise unknown("modality", name, {*self.query, *self.support})
        return replace(
            self,
            support={m: self.support[m] for m in modalities if m in self.support},
            query={m: self.query[m] for m in modalities if m in self.query},
            unlabelled=None if self.unlabelled is None else {m: self.unlabelled[m] for m in modalities},
        )

    def slice(self, first: int, last: int) -> Episodes:
        """Tasks first..last-1."""
        part = slice(first, last)
        return Episodes(
            {m: s[part] for m, s in self.support.items()},
            {m: s[part] for m, s in self.query.items()},
            self.query_label[part],
            self.class_id[part],
            None if self.words is None else self.words[part],
            None if self.unlabelled is None else {m: s[part] for m, s in self.unlabelled.items()},
        )

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Episodes:
        """On another device, features and words in another dtype."""
        words = None if self.words is None else self.words.to(device, dtype or self.words.dtype)
        return Episodes(
            {m: s.to(device, dtype) for m, s in self.support.items()},
            {m: s.to(device, dtype) for m, s in self.query.items()},
            self.query_label.to(device),
            self.class_id.to(device),
            words,
            None if self.unlabelled is None else {m: s.to(device, dtype) for m, s in self.unlabelled.items()},
        )
