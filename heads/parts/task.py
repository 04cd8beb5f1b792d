"""Tasks of pooled features: what metric heads compare, and in which dtype they compute.

Shapes: B tasks, N ways, K shots, Q queries, D features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes, Stream
from .absence import zero_where_absent
from .tensors import class_means, single


class Task(NamedTuple):
    """Pooled features of a batch of tasks.

    support: [B, N, K, D]; support_present: bool [B, N, K]; query: [B, Q, D]; query_present: bool [B, Q]. The features
    of absent clips are zero.
    """

    support: Tensor
    support_present: Tensor
    query: Tensor
    query_present: Tensor

    @property
    def class_present(self) -> Tensor:
        """Which classes have a support, bool [B, N]."""
        return self.support_present.any(2)

    def means(self) -> Tensor:
        """The mean [B, N, D] of the present supports of each class."""
        return class_means(self.support, self.support_present)[0]


def encoded_task(episodes: Episodes, encode: Callable[[Stream], Tensor]) -> Task:
    """The task of episodes of one modality whose clips [..., T, D] are encoded as vectors [..., D]."""
    support, query = single(episodes)
    return Task(encode(support), support.present, encode(query), query.present)


def pooled_task(episodes: Episodes, module: nn.Module | None = None) -> Task:
    """The task of episodes of one modality whose clips are averaged over time, in the dtype of ``module``.

    That is the dtype in which :func:`work_dtype` says that it computes.
    """
    dtype = work_dtype(single(episodes)[0].x.dtype, module)
    return encoded_task(episodes, lambda clips: zero_where_absent(clips.pooled().to(dtype), clips.present))


def work_dtype(given: torch.dtype, module: nn.Module | None = None) -> torch.dtype:
    """The dtype of the module's weights; else that of the features, half precisions raised to float32."""
    weight = None if module is None else next(module.parameters(), None)
    if weight is not None:
        return weight.dtype
    return torch.float32 if given in (torch.bfloat16, torch.float16) else given
