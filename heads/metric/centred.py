"""Training-free heads over transformed features."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import unknown
from ..head import Head, Inputs, Scorer
from ..parts.absence import where_there
from ..parts.task import Task, pooled_task, work_dtype
from ..settings import Settings

TRANSFORMS = ("un", "l2n", "cl2n")


class CentredHead(Head):
    """A training-free head over transformed features (Wang et al., SimpleShot, 2019).

    ``settings.transform``: "un" leaves features as they are, "l2n" scales them to length one, "cl2n" subtracts the
    base classes' mean first. The mean is found by ``fit_base`` (zero until then).
    """

    light = True
    mean: Tensor

    def __init__(self, inputs: Inputs, settings: Settings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.transform not in TRANSFORMS:
            raise unknown("transform", self.settings.transform, TRANSFORMS)
        self.register_buffer("mean", torch.zeros(inputs.one()[2]))

    def fit_base(self, base: FeatureBank) -> None:
        (table,) = base.tables.values()
        self.mean = table.mean().to(self.mean)

    def forward(self, episodes: Episodes) -> Tensor:
        return self.of_task(self.task(episodes))

    def of_task(self, task: Task) -> Tensor:
        """Logits [B, Q, N] of a task whose features are transformed."""
        raise TypeError(f"{type(self).__name__} does not define of_task")

    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Features are transformed once."""
        x = self.points(bank)
        if x is None:
            return None
        clips, device = x, bank.device

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = clips[index.support.to(device)], clips[index.query.to(device)]
            shown, asked = (
                torch.ones(t.shape[:-1], dtype=torch.bool, device=device) for t in (support, query)
            )
            return self.of_task(Task(support, shown, query, asked))

        return Scorer(score)

    def points(self, bank: FeatureBank) -> Tensor | None:
        x = super().points(bank)
        return None if x is None else self.transformed(x.to(work_dtype(x.dtype)))

    def task(self, episodes: Episodes) -> Task:
        """The pooled task with features transformed; absent clips stay zero."""
        task = pooled_task(episodes)
        support = where_there(self.transformed(task.support), task.shown)
        query = where_there(self.transformed(task.query), task.asked)
        return Task(support, task.shown, query, task.asked)

    def transformed(self, x: Tensor) -> Tensor:
        """x [..., D] as ``settings.transform`` says."""
        how = self.settings.transform
        if how == "cl2n":
            x = x - self.mean.to(x)
        return x if how == "un" else F.normalize(x, dim=-1)
