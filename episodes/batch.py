"""A batch of tasks is the input of a head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..cache.table import Stream
from ..errors import unknown

__all__ = ["Episodes", "Stream"]


@dataclass
class Episodes:
    """A batch of B tasks with N ways, K shots, Q queries, T steps and D features.

    This batch has two 3-way 1-shot tasks with four queries each, of clips with 8 steps of 16 numbers:

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
    """The supports, a Stream [B, N, K, T, D] for each modality."""
    query: dict[str, Stream]
    """The queries, a Stream [B, Q, T, D] for each modality."""
    query_label: Tensor
    """int64 [B, Q] in 0..N-1, -1 for padding (a query that does not exist); or uint8 [B, Q, N] multi-hot."""
    class_id: Tensor
    """int64 [B, N], the index of each class in the label set."""
    words: Tensor | None = None
    """The class-word vectors, float [B, N, E], or None."""
    unlabelled: dict[str, Stream] | None = None
    """The clips without labels, a Stream [B, U, T, D] for each modality, or None."""
    support_row: Tensor | None = None
    """int64 [B, N, K], the place of each support among the clips of the bank, 0 for padding; None for tasks of no bank.

    Places look up what is known of a clip beside its features. A head reads features alone."""
    query_row: Tensor | None = None
    """int64 [B, Q], the same of each query."""

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
        """The same tasks with the given modalities only. Raises UsageError for one that the tasks do not have."""
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
        """The tasks first .. last-1."""
        part = slice(first, last)
        return self._mapped(lambda stream: stream[part], lambda tensor: tensor[part])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Episodes:
        """The same tasks on another device, with features and words in another dtype if one is given."""
        moved = self._mapped(lambda stream: stream.to(device, dtype), lambda tensor: tensor.to(device))
        return (
            moved if moved.words is None else replace(moved, words=moved.words.to(dtype or moved.words.dtype))
        )

    def _mapped(self, stream: Callable[[Stream], Stream], tensor: Callable[[Tensor], Tensor]) -> Episodes:
        """The same tasks with ``stream`` applied to every Stream and ``tensor`` to every tensor."""
        extra = self.unlabelled
        return replace(
            self,
            support={m: stream(s) for m, s in self.support.items()},
            query={m: stream(s) for m, s in self.query.items()},
            query_label=tensor(self.query_label),
            class_id=tensor(self.class_id),
            words=None if self.words is None else tensor(self.words),
            unlabelled=None if extra is None else {m: stream(s) for m, s in extra.items()},
            support_row=None if self.support_row is None else tensor(self.support_row),
            query_row=None if self.query_row is None else tensor(self.query_row),
        )
