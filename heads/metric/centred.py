"""Heads over transformed features: as they are, of unit length, or centred by the base mean (SimpleShot, 2019)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.absence import zero_where_absent
from ..parts.context import TaskContext
from ..parts.task import Task, work_dtype
from ..scoring.gram import plain_points
from ..scoring.shortcut import Shortcut
from ..settings import Settings


@dataclass(frozen=True)
class CentredSettings(Settings):
    """What every head over transformed features lets its user choose."""

    transform: Literal["un", "l2n", "cl2n"] = "l2n"
    """The features as they are, of length one, or of length one after the base classes' mean was subtracted."""


C = TypeVar("C", bound=CentredSettings)


class CentredHead(EncodingHead[C, Tensor, Tensor]):
    """A head whose clips are transformed pooled features [..., D]; a subclass writes :meth:`decide`.

    The base classes' mean is found by ``fit_base`` (zero until then).
    """

    mean: Tensor

    def __init__(self, inputs: Inputs, settings: C) -> None:
        super().__init__(inputs, settings)
        self.register_buffer("mean", torch.zeros(inputs.one()[2]))

    def fit_base(self, base: FeatureBank) -> None:
        """Finds the mean of the base clips."""
        (table,) = base.tables.values()
        self.mean = table.mean().to(self.mean)

    def encode(self, clips: Stream) -> Tensor:
        """Transformed features [..., D]; absent clips stay zero."""
        x = zero_where_absent(clips.pooled(), clips.present)
        return zero_where_absent(self.transformed(x.to(work_dtype(x.dtype))), clips.present)

    def compare(self, support: Tensor, query: Tensor, context: TaskContext) -> Tensor:
        """Logits [B, Q, N] of transformed supports [B, N, K, D] and queries [B, Q, D]."""
        return self.decide(Task(support, context.support_present, query, context.query_present))

    def decide(self, task: Task) -> Tensor:
        """Logits [B, Q, N] of a task whose features are transformed."""
        raise TypeError(f"{type(self).__name__} does not define decide")

    def transformed(self, x: Tensor) -> Tensor:
        """x [..., D] as ``settings.transform`` says."""
        if self.settings.transform == "cl2n":
            x = x - self.mean.to(x)
        return x if self.settings.transform == "un" else F.normalize(x, dim=-1)

    def points(self, bank: FeatureBank) -> Tensor | None:
        """Transformed features [n, D] of all clips of a bank of pooled features."""
        x = plain_points(bank)
        return None if x is None else self.transformed(x.to(work_dtype(x.dtype)))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Features are transformed once."""
        return (self.once_per_clip(),)
