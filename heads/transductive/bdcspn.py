"""BD-CSPN: Prototype Rectification for Few-Shot Learning (Liu, Song and Qin, ECCV 2020).

Queries are shifted so that their mean meets the supports' mean; each is given to the class of the most similar
prototype; a class's new prototype is the mean of its supports and its queries, weighted by a softmax of their
similarities. Transductive: no query label and no class balance is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..metric.centred import CentredHead, CentredSettings
from ..parts.distances import cosine_to
from ..parts.task import Task
from ..parts.tensors import masked_mean
from ..settings import CountOrNone, Positive


@dataclass(frozen=True)
class BDCSPNSettings(CentredSettings):
    """BD-CSPN's settings."""

    scale: Positive = 10.0
    """The factor of the cosine inside the softmax weights; the paper's is 10."""
    shift: bool = True
    """Move the queries onto the supports' mean."""
    propagate: bool = True
    """Add queries with pseudo-labels to the prototypes."""
    top: CountOrNone = 0
    """How many of a class's queries with pseudo-labels, the most similar ones, count; 0: all."""
    score_shifted: bool = True
    """Score the shifted queries; false scores them where they were, as the re-implementation in easyfsl does."""


class BDCSPN(CentredHead[BDCSPNSettings]):
    Settings = BDCSPNSettings

    def decide(self, task: Task) -> Tensor:
        shift = self.shift(task)
        scored = shift if self.settings.score_shifted else None
        return self.settings.scale * cosine_to(task.query, self.rectified(task, shift), scored)

    def shift(self, task: Task) -> Tensor | None:
        """What is added to every query, [B, D]: mean support - mean query, of those present; None without ``shift``."""
        if not self.settings.shift:
            return None
        support = masked_mean(task.support.flatten(1, 2), task.support_present.flatten(1, 2))
        return support - masked_mean(task.query, task.query_present)

    def rectified(self, task: Task, shift: Tensor | None) -> Tensor:
        """Prototypes [B, N, D]: means of supports and queries with pseudo-labels, with weights exp(scale cos)."""
        prototype = task.means()
        if not self.settings.propagate:
            return prototype
        ways, shots = task.support_present.shape[1:]
        class_present = task.class_present[..., None]
        every = cosine_to(task.support.flatten(1, 2), prototype).unflatten(1, (ways, shots))
        to_own_class = torch.diagonal(every, dim1=1, dim2=3).transpose(1, 2)  # [B, N, K]
        to_class, member = self._pseudo_labels(task, prototype, shift)
        cosines = torch.cat(
            [
                to_own_class.masked_fill(~task.support_present, -torch.inf),
                to_class.masked_fill(~member, -torch.inf),
            ],
            -1,
        )
        weight = torch.softmax((self.settings.scale * cosines).masked_fill(~class_present, 0.0), -1)
        weight = weight * class_present.to(weight.dtype)
        of_support, of_query = weight.split([shots, weight.shape[-1] - shots], -1)
        total = torch.einsum("bnk,bnkd->bnd", of_support, task.support) + of_query @ task.query
        return total if shift is None else total + of_query.sum(-1, keepdim=True) * shift[:, None]

    def _pseudo_labels(self, task: Task, prototype: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """Cosines of prototypes and queries [B, N, Q], and which query counts for which class, bool [B, N, Q]."""
        to_class = cosine_to(task.query, prototype, shift).transpose(1, 2)
        choice = to_class.masked_fill(~task.class_present[..., None], -torch.inf).argmax(1, keepdim=True)
        ways = torch.arange(to_class.shape[1], device=to_class.device)[:, None]
        member = (choice == ways) & task.query_present[:, None, :] & task.class_present[..., None]
        if self.settings.top:
            ranked = to_class.masked_fill(~member, -torch.inf)
            floor = ranked.topk(min(self.settings.top, to_class.shape[2]), dim=-1).values[..., -1:]
            member = member & (to_class >= floor)
        return to_class, member
