"""Building blocks that several heads share. Shapes: B tasks, N ways, K shots, Q queries, T steps, D features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..errors import UsageError

KEPT_BYTES = 2 << 30  # of the mapped frames of a whole split that heads keep
KEPT_AT_ONCE = 256  # clips that are mapped at once
KEPT_NUMBERS = 1 << 25  # clips times width up to which heads keep projections of a whole split (134 MB each)


def in_parts(bank: FeatureBank) -> Iterator[Stream]:
    """All clips of a bank of one modality, some hundreds at a time."""
    (table,) = bank.tables.values()
    for rows in torch.arange(len(bank), device=bank.device).split(KEPT_AT_ONCE):
        yield table.gather(rows)


def single(episodes: Episodes) -> tuple[Stream, Stream]:
    """Support [B, N, K, T, D] and query [B, Q, T, D] of the only modality.

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
    """Means [B, N, D] of the present supports x [B, N, K, D], present [B, N, K]; and which classes have one [B, N]."""
    if x.shape[2] == 1:
        return x.squeeze(2), present.squeeze(2)
    weight = present.to(x.dtype)
    total = torch.einsum("bnkd,bnk->bnd", x, weight)
    return total / weight.sum(2).clamp(min=1)[..., None], present.any(2)


def neutral(logits: Tensor, query_present: Tensor, class_present: Tensor) -> Tensor:
    """Where nothing is known, say nothing: logits [B, Q, N] with the columns of classes without support set to the
    mean of the others, and the rows of absent queries set to zero. query_present [B, Q]; class_present [B, N].
    """
    if not class_present.all():
        known = class_present[:, None, :].to(logits.dtype)
        mean = (logits * known).sum(-1, keepdim=True) / known.sum(-1, keepdim=True).clamp(min=1)
        logits = torch.where(class_present[:, None, :], logits, mean)
    if not query_present.all():
        logits = logits * query_present[..., None].to(logits.dtype)
    return logits


def squared_distances(query: Tensor, centre: Tensor) -> Tensor:
    """|q - c|^2 [B, Q, N] of query [B, Q, D] and centre [B, N, D], by one batched product."""
    product = torch.matmul(query, centre.transpose(-1, -2))
    return (query.square().sum(-1)[..., None] - 2 * product + centre.square().sum(-1)[..., None, :]).clamp(
        min=0
    )


def cosine(a: Tensor, b: Tensor, epsilon: float = 0.0) -> Tensor:
    """<a, b> / (|a||b| + epsilon) for all pairs: a [..., I, D], b [..., J, D] give [..., I, J].

    The products are divided, not the vectors: no copy of the many features. A zero vector has cosine 0.
    """
    norms = a.norm(dim=-1)[..., :, None] * b.norm(dim=-1)[..., None, :]
    norms, product = norms + epsilon if epsilon else norms.clamp(min=1e-12), a @ b.transpose(-1, -2)
    return product / norms if product.requires_grad else product.div_(norms)


def max_pool(x: Tensor) -> Tensor:
    """2 x 2 maxima of maps [..., H, W] -> [..., H // 2, W // 2].

    Without gradients by two maxima of slices, twenty times as fast as torch's pooling of small maps on a CPU; torch's
    has the faster gradient.
    """
    if x.requires_grad or x.device.type != "cpu":
        return F.max_pool2d(x.flatten(0, -4), 2).view(*x.shape[:-2], x.shape[-2] // 2, x.shape[-1] // 2)
    x = x[..., : x.shape[-2] // 2 * 2, : x.shape[-1] // 2 * 2]
    rows = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def flat_support(support: Stream) -> tuple[Tensor, Tensor]:
    """Pooled supports class by class: x [B, N*K, D] and present [B, N*K]."""
    return support.pooled().flatten(1, 2), support.present.flatten(1, 2)


def support_labels(episodes: Episodes) -> Tensor:
    """Labels of the supports class by class, int64 [N*K]."""
    return torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)


def class_sum(x: Tensor, ways: int) -> Tensor:
    """Sum over the supports of each class: [..., N*K] -> [..., N]."""
    return x.unflatten(-1, (ways, -1)).sum(-1)
