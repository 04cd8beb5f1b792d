"""LaplacianShot: Laplacian Regularized Few-Shot Learning (Ziko, Dolz, Granger and Ben Ayed, ICML 2020).

Each query pays its squared distance to the prototype it is given to, and nearby queries are asked to agree: a
Laplacian term over a nearest-neighbour graph of the queries. Independent bound updates solve it in a few rounds.
Transductive: no query label and no class balance is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ...errors import UsageError
from ..head import Inputs
from ..metric.centred import CentredHead
from ..parts.absence import neutral
from ..parts.distances import apart, near
from ..parts.task import Task
from ..parts.tensors import masked_mean
from ..settings import Settings

_FAR = 1e4  # a unary that no class with samples can reach: unit features are at most 4 apart


@dataclass(frozen=True)
class LaplacianShotSettings(Settings):
    """transform: of the features, see SimpleShot. weight: lambda of the Laplacian term (published: 1, or tuned on
    validation among .1 .3 .5 .7 .8 1 1.2 1.5).

    knn: neighbours as the released code counts them: the query itself is one of them.
    rectify: shift the queries and rectify the prototypes first. empty: what becomes of a class that rectification
    gives no sample: "keep" its mean, or "drop" the class (released code).
    iterations: most bound updates; an episode stops when its energy changes by less than ``tolerance`` of itself.
    """

    transform: str = "cl2n"
    weight: float = 1.0
    knn: int = 3
    rectify: bool = True
    empty: str = "keep"
    iterations: int = 20
    tolerance: float = 1e-6


class LaplacianShot(CentredHead):
    settings_class = LaplacianShotSettings

    def __init__(self, inputs: Inputs, settings: LaplacianShotSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.empty not in ("keep", "drop"):
            raise UsageError(f"empty={self.settings.empty!r} is not known; use keep or drop.")

    def of_task(self, task: Task) -> Tensor:
        """Logits: log of the relaxed assignments."""
        unary, neighbour, weight = self.problem(task)
        assignment, _ = self.bound_updates(unary, neighbour, weight, task.asked)
        return neutral(assignment.clamp(min=1e-20).log(), task.asked, task.known)

    def problem(self, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        """Unary costs [B, Q, N]; each query's neighbours, int64 [B, Q, knn - 1], and their weights (0 or 1)."""
        prototype, kept = task.means(), task.known
        if self.settings.rectify:
            # Shifting the queries one way or the prototypes the other is the same to every distance.
            gap, prototype, kept = self.rectified(task)
            prototype = prototype - gap[:, None]
        unary = apart(task.query, prototype)
        return unary.masked_fill(~kept[:, None, :], _FAR), *self.neighbours(task.query, task.asked)

    def rectified(self, task: Task) -> tuple[Tensor, Tensor, Tensor]:
        """Shift of the queries [B, D], rectified prototypes [B, N, D], and which classes remain, bool [B, N]."""
        support, shown = task.support.flatten(1, 2), task.shown.flatten(1, 2)
        gap = masked_mean(support, shown) - masked_mean(task.query, task.asked)
        mean = task.means()
        of_support, first = self._shares(near(support, mean), shown, task.known)
        of_query, second = self._shares(near(task.query, mean, gap), task.asked, task.known)
        count = first + second
        total = of_support @ support + of_query @ task.query + of_query.sum(-1, keepdim=True) * gap[:, None]
        # The released code divides by the number of members, not by the sum of their weights.
        prototype = total / count.clamp(min=1)[..., None]
        full = count > 0
        kept = task.known & full if self.settings.empty == "drop" else task.known
        return gap, torch.where(full[..., None], prototype, mean), kept

    def _shares(self, similar: Tensor, there: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """From cosines [B, M, N]: weight [B, N, M] of each sample in its nearest class; members a class [B, N]."""
        similar = (10 * similar).masked_fill(~known[:, None, :], -_FAR)
        member = F.one_hot(similar.argmax(-1), similar.shape[-1]).to(similar.dtype) * there[..., None]
        return (torch.softmax(similar, -1) * member).transpose(1, 2), member.sum(1)

    def neighbours(self, query: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
        """The knn - 1 nearest other queries of each query, int64 [B, Q, knn - 1], and weights: 0 for absent ones."""
        size = query.shape[1]
        others = max(min(self.settings.knn - 1, size - 1), 0)
        product = query @ query.transpose(1, 2)
        # The nearest have the largest <q, r> - |r|^2 / 2.
        close = product - 0.5 * torch.diagonal(product, dim1=1, dim2=2)[:, None]
        torch.diagonal(close, dim1=1, dim2=2).fill_(-torch.inf)
        if not bool(asked.all()):
            close = close.masked_fill(~asked[:, None, :], -torch.inf)
        found = []
        for _ in range(others):  # a few maxima are much faster than a sort of short rows
            value, index = close.max(-1, keepdim=True)
            found.append((index, (value > -torch.inf) & asked[..., None]))
            close.scatter_(-1, index, -torch.inf)
        if not found:
            return asked.new_zeros(*asked.shape, 0, dtype=torch.int64), query.new_zeros(*asked.shape, 0)
        return torch.cat([i for i, _ in found], -1), torch.cat([w for _, w in found], -1).to(query.dtype)

    def bound_updates(
        self, unary: Tensor, neighbour: Tensor, weight: Tensor, asked: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Assignments Y [B, Q, N] and energies [rounds, B] (NaN after an episode's last round).

        Rows of absent queries have no neighbours and are nobody's neighbour, so they do not move the others.
        """
        given = self.settings
        cost = unary.transpose(
            1, 2
        ).contiguous()  # classes before queries: sums over few classes are then fast
        y = torch.softmax(-cost, 1)
        around = _around(y, neighbour, weight)
        old = unary.new_full((unary.shape[0],), torch.inf)
        active = torch.ones_like(old, dtype=torch.bool)
        energies = []
        for step in range(given.iterations):
            y = torch.where(active[:, None, None], torch.softmax(given.weight * around - cost, 1), y)
            around = _around(y, neighbour, weight)
            # entropy, unary and Laplacian terms
            terms = y * (y.clamp(min=1e-20).log() + cost - given.weight * around)
            energy = (terms * asked[:, None]).sum((1, 2))
            energies.append(energy.masked_fill(~active, torch.nan))
            if step > 1:
                active = active & ((energy - old).abs() > given.tolerance * old.abs())
                if not active.any():
                    break
            old = energy
        return y.transpose(1, 2), torch.stack(energies)


def _around(y: Tensor, neighbour: Tensor, weight: Tensor) -> Tensor:
    """Sum of the assignments of each query's neighbours, W Y: y [B, N, Q] -> [B, N, Q]."""
    total = torch.zeros_like(y)
    for k in range(neighbour.shape[-1]):
        near_by = torch.gather(y, 2, neighbour[:, None, :, k].expand_as(y))
        total = total + near_by * weight[:, None, :, k]
    return total
