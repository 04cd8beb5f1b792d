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

from ..episodes.batch import Episodes
from ..errors import UsageError
from .base import Inputs, Settings
from .metric_parts import CentredHead, Task, masked_mean, near
from .parts import neutral, squared_distances

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

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: log of the relaxed assignments."""
        task = self.task(episodes)
        unary, affinity = self.problem(task)
        assignment, _ = self.bound_updates(unary, affinity)
        return neutral(assignment.clamp(min=1e-20).log(), task.asked, task.known)

    def problem(self, task: Task) -> tuple[Tensor, Tensor]:
        """Unary costs [B, Q, N] and the directed affinity W [B, Q, Q] of a task."""
        query, prototype, kept = task.query, task.means(), task.known
        if self.settings.rectify:
            task, prototype, kept = self.rectified(task)
            query = task.query
        unary = squared_distances(query, prototype)
        return unary.masked_fill(~kept[:, None, :], _FAR), self.neighbours(query, task.asked)

    def rectified(self, task: Task) -> tuple[Task, Tensor, Tensor]:
        """The task with shifted queries, rectified prototypes [B, N, D], and which classes remain, bool [B, N]."""
        support, shown = task.support.flatten(1, 2), task.shown.flatten(1, 2)
        gap = masked_mean(support, shown) - masked_mean(task.query, task.asked)
        task = task._replace(query=task.query + gap[:, None])
        mean = task.means()
        of_support, first = self._shares(support, shown, mean, task.known)
        of_query, second = self._shares(task.query, task.asked, mean, task.known)
        count = first + second
        # The released code divides by the number of members, not by the sum of their weights.
        prototype = (of_support @ support + of_query @ task.query) / count.clamp(min=1)[..., None]
        full = count > 0
        kept = task.known & full if self.settings.empty == "drop" else task.known
        return task, torch.where(full[..., None], prototype, mean), kept

    def _shares(self, x: Tensor, there: Tensor, mean: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [B, N, M] of each sample x [B, M, D] in the class it is nearest to; members a class [B, N]."""
        similar = (10 * near(x, mean)).masked_fill(~known[:, None, :], -_FAR)
        member = F.one_hot(similar.argmax(-1), mean.shape[1]).to(x.dtype) * there[..., None]
        return (torch.softmax(similar, -1) * member).transpose(1, 2), member.sum(1)

    def neighbours(self, query: Tensor, asked: Tensor) -> Tensor:
        """W [B, Q, Q]: 1 where the column is among the knn - 1 nearest other queries of the row; directed."""
        size = query.shape[1]
        others = min(self.settings.knn - 1, size - 1)
        if others < 1:
            return query.new_zeros(query.shape[0], size, size)
        gap = squared_distances(query, query)
        itself = torch.eye(size, dtype=torch.bool, device=query.device)
        pair = asked[:, :, None] & asked[:, None, :] & ~itself
        gap = gap.masked_fill(~pair, torch.inf)
        nearest = gap.topk(others, dim=-1, largest=False).indices
        return torch.zeros_like(gap).scatter(-1, nearest, 1.0) * pair.to(gap.dtype)

    def bound_updates(self, unary: Tensor, affinity: Tensor) -> tuple[Tensor, Tensor]:
        """Assignments Y [B, Q, N] and energies [rounds, B] (NaN after an episode's last round).

        Rows of absent queries have no neighbours and are nobody's neighbour, so they do not move the others.
        """
        y = torch.softmax(-unary, -1)
        old = unary.new_full((unary.shape[0],), torch.inf)
        active = torch.ones_like(old, dtype=torch.bool)
        energies = []
        for step in range(self.settings.iterations):
            new = torch.softmax(self.settings.weight * (affinity @ y) - unary, -1)
            y = torch.where(active[:, None, None], new, y)
            energy = self.energy(y, unary, affinity)
            energies.append(energy.masked_fill(~active, torch.nan))
            if step > 1:
                active = active & ((energy - old).abs() > self.settings.tolerance * old.abs())
            old = energy
        return y, torch.stack(energies)

    def energy(self, y: Tensor, unary: Tensor, affinity: Tensor) -> Tensor:
        """Entropy, unary and Laplacian terms of assignments y, [B]."""
        terms = y * y.clamp(min=1e-20).log() + unary * y - self.settings.weight * (affinity @ y) * y
        return terms.sum((1, 2))
