"""LaplacianShot: Laplacian Regularized Few-Shot Learning (Ziko, Dolz, Granger and Ben Ayed, ICML 2020).

Each query pays its squared distance to the prototype it is given to, and nearby queries are asked to agree: a
Laplacian term over a nearest-neighbour graph of the queries. Independent bound updates solve it in a few rounds.
Transductive: no query label and no class balance is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..metric.centred import CentredHead, CentredSettings
from ..parts.distances import cosine_to, squared_distance_to
from ..parts.task import Task
from ..parts.tensors import masked_mean
from ..settings import Count, NonNegative

_FAR = 1e4  # a unary that no class with samples can reach: unit features are at most 4 apart


@dataclass(frozen=True)
class LaplacianShotSettings(CentredSettings):
    """LaplacianShot's settings."""

    transform: Literal["un", "l2n", "cl2n"] = "cl2n"
    """The features as they are, of length one, or of length one after the base classes' mean was subtracted."""
    weight: NonNegative = 1.0
    """Lambda, the weight of the Laplacian term; published: 1, or tuned on validation among .1 .3 .5 .7 .8 1 1.2 1.5."""
    knn: Count = 3
    """The neighbours of a query, as the released code counts them: the query itself is one of them."""
    rectify: bool = True
    """Shift the queries and rectify the prototypes first."""
    empty: Literal["keep", "drop"] = "keep"
    """What becomes of a class to which rectification gives no sample: it keeps its mean, or it is dropped (released
    code)."""
    iterations: Count = 20
    """The most bound updates."""
    tolerance: NonNegative = 1e-6
    """An episode stops when its energy changes by less than this share of itself."""


class LaplacianShot(CentredHead[LaplacianShotSettings]):
    Settings = LaplacianShotSettings

    def decide(self, task: Task) -> Tensor:
        """Logits [B, Q, N]: the logarithm of the relaxed assignments."""
        unary, neighbour, weight = self.problem(task)
        assignment, _ = self.bound_updates(unary, neighbour, weight, task.query_present)
        return assignment.clamp(min=1e-20).log()

    def problem(self, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        """Unary costs [B, Q, N]; each query's neighbours, int64 [B, Q, knn - 1], and their weights (0 or 1)."""
        prototype, kept = task.means(), task.class_present
        if self.settings.rectify:
            # Shifting the queries one way or the prototypes the other is the same to every distance.
            gap, prototype, kept = self.rectified(task)
            prototype = prototype - gap[:, None]
        unary = squared_distance_to(task.query, prototype)
        return unary.masked_fill(~kept[:, None, :], _FAR), *self.neighbours(task.query, task.query_present)

    def rectified(self, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        """Shift of the queries [B, D], rectified prototypes [B, N, D], and which classes remain, bool [B, N]."""
        support, present = task.support.flatten(1, 2), task.support_present.flatten(1, 2)
        gap = masked_mean(support, present) - masked_mean(task.query, task.query_present)
        mean = task.means()
        of_support, supports = _shares(cosine_to(support, mean), present, task.class_present)
        of_query, queries = _shares(cosine_to(task.query, mean, gap), task.query_present, task.class_present)
        count = supports + queries
        total = of_support @ support + of_query @ task.query + of_query.sum(-1, keepdim=True) * gap[:, None]
        # The released code divides by the number of members, not by the sum of their weights.
        prototype = total / count.clamp(min=1)[..., None]
        has_sample = count > 0
        kept = task.class_present & has_sample if self.settings.empty == "drop" else task.class_present
        return gap, torch.where(has_sample[..., None], prototype, mean), kept

    def neighbours(self, query: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The knn - 1 nearest other queries of each query, int64 [B, Q, knn - 1], and their weights.

        A weight is 1, or 0 where either of the two is absent.
        """
        size = query.shape[1]
        others = max(min(self.settings.knn - 1, size - 1), 0)
        product = query @ query.transpose(1, 2)
        # The nearest have the largest <q, r> - |r|^2 / 2.
        nearness = product - 0.5 * torch.diagonal(product, dim1=1, dim2=2)[:, None]
        torch.diagonal(nearness, dim1=1, dim2=2).fill_(-torch.inf)
        if not bool(present.all()):
            nearness = nearness.masked_fill(~present[:, None, :], -torch.inf)
        found = []
        for _ in range(others):  # a few maxima are much faster than a sort of short rows
            value, index = nearness.max(-1, keepdim=True)
            found.append((index, (value > -torch.inf) & present[..., None]))
            nearness.scatter_(-1, index, -torch.inf)
        if not found:
            return present.new_zeros(*present.shape, 0, dtype=torch.int64), query.new_zeros(*present.shape, 0)
        return torch.cat([i for i, _ in found], -1), torch.cat([w for _, w in found], -1).to(query.dtype)

    def bound_updates(
        self, unary: Tensor, neighbour: Tensor, weight: Tensor, query_present: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Assignments Y [B, Q, N] and energies [rounds, B] (NaN after an episode's last round).

        Rows of absent queries have no neighbours and are nobody's neighbour, so they do not move the others.
        """
        laplacian = self.settings.weight
        # With classes before queries, sums over few classes are fast.
        cost = unary.transpose(1, 2).contiguous()
        y = torch.softmax(-cost, 1)
        around = _around(y, neighbour, weight)
        old = unary.new_full((unary.shape[0],), torch.inf)
        active = torch.ones_like(old, dtype=torch.bool)
        energies = []
        for step in range(self.settings.iterations):
            y = torch.where(active[:, None, None], torch.softmax(laplacian * around - cost, 1), y)
            around = _around(y, neighbour, weight)
            # The terms are the entropy, the unary costs and the Laplacian.
            terms = y * (y.clamp(min=1e-20).log() + cost - laplacian * around)
            energy = (terms * query_present[:, None]).sum((1, 2))
            energies.append(energy.masked_fill(~active, torch.nan))
            if step > 1:
                active = active & ((energy - old).abs() > self.settings.tolerance * old.abs())
                if not active.any():
                    break
            old = energy
        return y.transpose(1, 2), torch.stack(energies)


def _shares(similarity: Tensor, present: Tensor, class_present: Tensor) -> tuple[Tensor, Tensor]:
    """The weight [B, N, M] of each sample in its most similar class, and the members a class [B, N].

    similarity: cosines [B, M, N]; present: bool [B, M]; class_present: bool [B, N].
    """
    similarity = (10 * similarity).masked_fill(~class_present[:, None, :], -_FAR)
    member = F.one_hot(similarity.argmax(-1), similarity.shape[-1]).to(similarity.dtype) * present[..., None]
    return (torch.softmax(similarity, -1) * member).transpose(1, 2), member.sum(1)


def _around(y: Tensor, neighbour: Tensor, weight: Tensor) -> Tensor:
    """W Y [B, N, Q], the sum of the assignments of each query's neighbours, of assignments y [B, N, Q]."""
    total = torch.zeros_like(y)
    for k in range(neighbour.shape[-1]):
        assignment = torch.gather(y, 2, neighbour[:, None, :, k].expand_as(y))
        total = total + assignment * weight[:, None, :, k]
    return total
