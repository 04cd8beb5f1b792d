"""Building blocks of the metric heads: pooled tasks, base-mean transforms, normalisation a task, a cosine start.

Shapes: B tasks, N ways, K shots, Q queries, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes
from .absence import where_there
from .tensors import class_means, single


class Task(NamedTuple):
    """Pooled features of a batch of tasks.

    support [B, N, K, D], shown bool [B, N, K]; query [B, Q, D], asked bool [B, Q]. What is absent is zero.
    """

    support: Tensor
    shown: Tensor
    query: Tensor
    asked: Tensor

    @property
    def known(self) -> Tensor:
        """Which classes have a support, bool [B, N]."""
        return self.shown.any(2)

    def means(self) -> Tensor:
        """Class means [B, N, D] of the supports that are there."""
        return class_means(self.support, self.shown)[0]


def pooled_task(episodes: Episodes, module: nn.Module | None = None) -> Task:
    """The only modality, averaged over time, in the dtype that ``module`` computes in (see ``work_dtype``)."""
    support, query = single(episodes)
    dtype = work_dtype(support.x.dtype, module)
    s, q = support.pooled().to(dtype), query.pooled().to(dtype)
    return Task(
        where_there(s, support.present), support.present, where_there(q, query.present), query.present
    )


def work_dtype(given: torch.dtype, module: nn.Module | None = None) -> torch.dtype:
    """The dtype of the module's weights; without weights the features' own, half precisions raised to float32."""
    weight = None if module is None else next(module.parameters(), None)
    if weight is not None:
        return weight.dtype
    return torch.float32 if given in (torch.bfloat16, torch.float16) else given
