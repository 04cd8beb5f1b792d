"""BD-CSPN: Prototype Rectification for Few-Shot Learning (Liu, Song and Qin, ECCV 2020).

Queries are shifted so that their mean meets the supports' mean; each is given to the class of the most similar
prototype; a class's new prototype is the mean of its supports and its queries, weighted by a softmax of their
similarities. Transductive: no query label and no class balance is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..metric.centred import CentredHead
from ..parts.absence import neutral
from ..parts.distances import near
from ..parts.task import Task
from ..parts.tensors import masked_mean
from ..settings import Settings


@dataclass(frozen=True)
class BDCSPNSettings(Settings):
    """transform: of the features, see SimpleShot. scale: of the cosine inside the softmax weights (paper: 10).

    shift: move the queries onto the supports' mean. propagate: add pseudo-labelled queries to the prototypes.
    top: of a class's pseudo-labelled queries only the so many most similar (0: all).
    score_shifted: score the shifted queries; False scores them where they were (the easyfsl re-implementation).
    """

    transform: str = "l2n"
    scale: float = 10.0
    shift: bool = True
    propagate: bool = True
    top: int = 0
    score_shifted: bool = True


class BDCSPN(CentredHead):
    settings_class = BDCSPNSettings

    def of_task(self, task: Task) -> Tensor:
        shift = self.shift(task)
        similar = near(
            task.query, self.rectified(task, shift), shift if self.settings.score_shifted else None
        )
        return neutral(self.settings.scale * similar, task.asked, task.known)

    def shift(self, task: Task) -> Tensor | None:
        """What is added to every query [B, D]: mean support - mean query; absent ones take no part."""
        if not self.settings.shift:
            return None
        support = masked_mean(task.support.flatten(1, 2), task.shown.flatten(1, 2))
        return support - masked_mean(task.query, task.asked)

    def rectified(self, task: Task, shift: Tensor | None) -> Tensor:
        """Prototypes [B, N, D]: sums of supports and pseudo-labelled queries, weights exp(scale cos) / their sum."""
        prototype = task.means()
        if not self.settings.propagate:
            return prototype
        ways, shots = task.shown.shape[1:]
        every = near(task.support.flatten(1, 2), prototype).unflatten(1, (ways, shots))
        own = torch.diagonal(every, dim1=1, dim2=3).transpose(
            1, 2
        )  # a support's cosine to its own class [B, N, K]
        shared, member = self._pseudo_labels(task, prototype, shift)
        logs = torch.cat(
            [own.masked_fill(~task.shown, -torch.inf), shared.masked_fill(~member, -torch.inf)], -1
        )
        weight = torch.softmax((self.settings.scale * logs).masked_fill(~task.known[..., None], 0.0), -1)
        weight = weight * task.known[..., None].to(weight.dtype)
        of_support, of_query = weight.split([shots, weight.shape[-1] - shots], -1)
        total = torch.einsum("bnk,bnkd->bnd", of_support, task.support) + of_query @ task.query
        return total if shift is None else total + of_query.sum(-1, keepdim=True) * shift[:, None]

    def _pseudo_labels(self, task: Task, prototype: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cosines of prototypes and queries [B, N, Q], and which query counts for which class, bool [B, N, Q]."""
        shared = near(task.query, prototype, shift).transpose(1, 2)
        choice = shared.masked_fill(~task.known[..., None], -torch.inf).argmax(1, keepdim=True)
        ways = torch.arange(shared.shape[1], device=shared.device)[:, None]
        member = (choice == ways) & task.asked[:, None, :] & task.known[..., None]
        if self.settings.top:
            ranked = shared.masked_fill(~member, -torch.inf)
            floor = ranked.topk(min(self.settings.top, shared.shape[2]), dim=-1).values[..., -1:]
            member = member & (shared >= floor)
        return shared, member
