"""What surrounds the clips of a batch of tasks: which of them are there, and what their classes are called."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class TaskContext(NamedTuple):
    """support_present: bool [B, N, K]; query_present: bool [B, Q]; words: class words [B, N, E], or None."""

    support_present: Tensor
    query_present: Tensor
    words: Tensor | None = None

    @property
    def class_present(self) -> Tensor:
        """Which classes have a support, bool [B, N]."""
        return self.support_present.any(2)
