"""Supports and queries as tensors: the only modality, class means, labels.

Shapes: B tasks, N ways, K shots, Q queries, T steps, D features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...episodes.batch import Episodes, Stream
from ...errors import UsageError


def single(episodes: Episodes) -> tuple[Stream, Stream]:
    """The supports [B, N, K, T, D] and the queries [B, Q, T, D] of the only modality.

    Raises UsageError where there are several, or where support and query carry different ones.
    """
    if len(episodes.support) != 1 or len(episodes.query) != 1:
        held = ", ".join(dict.fromkeys([*episodes.support, *episodes.query]))
        raise UsageError(f"This head takes one modality and got {held}; use --modalities or --fusion.")
    (support_name, support), (query_name, query) = *episodes.support.items(), *episodes.query.items()
    if support_name != query_name:
        raise UsageError(
            f"This head cannot compare {support_name} supports with {query_name} queries; use a head with a common "
            "space (--method common-space)."
        )
    return support, query


def class_means(x: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
    """The means [B, N, D] of each class's present supports, and which classes have one, bool [B, N].

    x: supports [B, N, K, D]; present: bool [B, N, K].
    """
    if x.shape[2] == 1:
        return x.squeeze(2), present.squeeze(2)
    weight = present.to(x.dtype)
    total = torch.einsum("bnkd,bnk->bnd", x, weight)
    return total / weight.sum(2).clamp(min=1)[..., None], present.any(2)


def flat_support(support: Stream) -> tuple[Tensor, Tensor]:
    """Pooled supports [B, N*K, D] class by class, and which are present, bool [B, N*K]."""
    return support.pooled().flatten(1, 2), support.present.flatten(1, 2)


def support_labels(episodes: Episodes) -> Tensor:
    """The labels int64 [N*K] of the supports, class by class."""
    return torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)


def class_sum(x: Tensor, ways: int) -> Tensor:
    """The sums [..., N] of x [..., N*K] over the supports of each class."""
    return x.unflatten(-1, (ways, -1)).sum(-1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean [B, D] of the rows of x [B, M, D] where the mask bool [B, M] is true; zeros where there is none."""
    weight = mask.to(x.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    return (weight[:, None] @ x).squeeze(1)


def check_ways(episodes: Episodes, way: int, name: str) -> None:
    """Raises UsageError where episodes have more classes than the ``way`` for which the head called ``name`` was built.

    It is for heads whose weights belong to class positions.
    """
    if episodes.ways > way:
        raise UsageError(
            f"This {name} head was built for {way} classes and got {episodes.ways}; build it with --n-way "
            f"{episodes.ways}."
        )
