"""Names for the clusters of a task that was solved without supports."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def cluster_names(cluster: Tensor, z: Tensor, present: Tensor, *, matching: bool) -> Tensor:
    """The class of each cluster, int64 [B, N]; -1 for a cluster without queries.

    cluster: the cluster of each query, int64 [B, Q]; z: what words say of each query, probabilities [B, Q, N]; present:
    which queries there are, bool [B, Q]; matching: whether every cluster gets another class, so that the sum of the
    clusters' mean probabilities of their classes is greatest (Hungarian method), or each its likeliest.
    """
    ways = z.shape[-1]
    member = F.one_hot(cluster, ways).to(z.dtype) * present[..., None].to(z.dtype)
    size = member.sum(1)
    mean = member.transpose(1, 2) @ z / size.clamp(min=1)[..., None]
    name = _matched(mean, size > 0) if matching else mean.argmax(-1)
    return name.masked_fill(size == 0, -1)


def _matched(mean: Tensor, full: Tensor) -> Tensor:
    """The classes int64 [B, N] that the clusters get; those of empty clusters have no meaning."""
    from scipy.optimize import linear_sum_assignment

    # SciPy solves one task at a time, in some ten microseconds, a thousandth of what its mixture takes to fit.
    value, used = mean.cpu().numpy(), full.cpu().numpy()
    name = np.zeros(used.shape, np.int64)
    for task, rows in enumerate(used):
        own, found = linear_sum_assignment(value[task][rows], maximize=True)
        name[task, np.flatnonzero(rows)[own]] = found
    return torch.from_numpy(name).to(mean.device)


def as_classes(score: Tensor, name: Tensor) -> Tensor:
    """Scores [B, Q, N] of clusters as scores of classes; name: the class of each cluster, int64 [B, N], -1 for none.

    A class has the best score among its clusters, and the query's lowest less one where it has none.
    """
    ways = score.shape[-1]
    belongs = name[..., None] == torch.arange(ways, device=name.device)
    found = score[..., None].masked_fill(~belongs[:, None], -torch.inf).amax(2)
    return torch.where(belongs.any(1)[:, None], found, score.amin(-1, keepdim=True) - 1)
