"""Building blocks of the metric heads: pooled tasks, base-mean transforms, normalisation a task, a cosine start.

Shapes: B tasks, N ways, K shots, Q queries, D features.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..episodes.sampler import EpisodeIndex
from ..errors import UsageError, unknown
from .base import Head, Inputs, Scorer, Settings
from .parts import class_means, cosine, single

TRANSFORMS = ("un", "l2n", "cl2n")


class Task(NamedTuple):
    """Pooled features of a batch of tasks.

    support [B, N, K, D], shown bool [B, N, K]; query [B, Q, D], asked bool [B, Q]. What is absent is zero.
    """

    support: Tensor
    shown: Tensor
    query: Tensor
    asked: Tensor

    @property
    def known(self) -> Tensor:
        """Which classes have a support, bool [B, N]."""
        return self.shown.any(2)

    def means(self) -> Tensor:
        """Class means [B, N, D] of the supports that are there."""
        return class_means(self.support, self.shown)[0]


def pooled_task(episodes: Episodes, module: nn.Module | None = None) -> Task:
    """The only modality, averaged over time, in the dtype that ``module`` computes in (see ``work_dtype``)."""
    support, query = single(episodes)
    dtype = work_dtype(support.x.dtype, module)
    s, q = support.pooled().to(dtype), query.pooled().to(dtype)
    return Task(
        where_there(s, support.present), support.present, where_there(q, query.present), query.present
    )


def where_there(x: Tensor, there: Tensor) -> Tensor:
    """x [..., D] with zeros where not there [...]; no copy where all is there (fusion fills in what is absent)."""
    return x if bool(there.all()) else x * there[..., None].to(x.dtype)


def near(x: Tensor, w: Tensor, shift: Tensor | None = None) -> Tensor:
    """Cosine [B, M, N] of x + shift and w: x [B, M, D], w [B, N, D], shift [B, D].

    The many x are neither copied nor changed: shifted products and lengths follow from products with the shift.
    """
    w = F.normalize(w, dim=-1)
    if shift is None:
        return (x @ w.transpose(1, 2)) / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    gap = shift[:, None]
    product = x @ torch.cat([w, gap], 1).transpose(1, 2)
    square = (
        x.norm(dim=-1, keepdim=True).square() + 2 * product[..., -1:] + gap.square().sum(-1, keepdim=True)
    )
    return (product[..., :-1] + gap @ w.transpose(1, 2)) / square.clamp(min=1e-24).sqrt()


def apart(x: Tensor, w: Tensor) -> Tensor:
    """Squared distances [B, M, N] of x [B, M, D] and w [B, N, D], without a squared copy of the many x."""
    square = x.norm(dim=-1, keepdim=True).square() + w.square().sum(-1)[:, None]
    return torch.baddbmm(square, x, w.transpose(1, 2), alpha=-2.0).clamp(min=0)


def work_dtype(given: torch.dtype, module: nn.Module | None = None) -> torch.dtype:
    """The dtype of the module's weights; without weights the features' own, half precisions raised to float32."""
    weight = None if module is None else next(module.parameters(), None)
    if weight is not None:
        return weight.dtype
    return torch.float32 if given in (torch.bfloat16, torch.float16) else given


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean [B, D] of the rows of x [B, M, D] where mask [B, M]; zeros where there is none."""
    weight = mask.to(x.dtype) / mask.sum(1, keepdim=True).clamp(min=1)
    return (weight[:, None] @ x).squeeze(1)


def targets(episodes: Episodes, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One-hot (or multi-hot) labels [B, Q, N] and which queries have one, bool [B, Q]."""
    label = episodes.query_label
    if episodes.multi:
        return label.to(dtype), torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
    valid = label >= 0
    hot = F.one_hot(label.clamp(min=0), episodes.ways).to(dtype)
    return hot * valid[..., None].to(dtype), valid


def relation_mse(logits: Tensor, episodes: Episodes) -> Tensor:
    """Mean squared error between sigmoid(logits) [B, Q, N] and the one-hot labels, over the queries that exist."""
    hot, valid = targets(episodes, logits.dtype)
    error = (logits.sigmoid() - hot).square().mean(-1)
    return (error * valid).sum() / valid.sum().clamp(min=1)


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


class CosineStart(nn.Module):
    """scale * cos(query, class mean) + offset, the training-free rule that a learned relation begins at and adds to.

    Scale and offset are learned; they start where a sigmoid of the sum separates like from unlike.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))

    def forward(self, query: Tensor, prototype: Tensor) -> Tensor:
        """query [B, Q, D], prototype [B, N, D] -> [B, Q, N]."""
        return self.of_cosines(cosine(query, prototype))

    def of_cosines(self, value: Tensor) -> Tensor:
        """The same from cosines."""
        return self.scale * value + self.offset


class AlignedStart(nn.Module):
    """scale * similarity + offset of two sequences, the training-free rule that sequence relations begin at.

    Every step is aligned to the other sequence by attention (softmax of ``sharpness`` times cosines) and compared with
    what it is aligned to; the similarity is the mean over both sequences' steps. Scale and offset are learned.
    """

    def __init__(self, scale: float = 10.0, offset: float = -5.0, sharpness: float = 10.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.offset = nn.Parameter(torch.tensor(offset))
        self.sharpness = sharpness

    def forward(self, query: Stream, support: Stream) -> Tensor:
        """query [B, Q, T, D], support [B, N, K, T, D] -> [B, Q, N, K]."""
        return self.scale * self.similarity(query, support) + self.offset

    @torch.no_grad()
    def similarity(self, query: Stream, support: Stream) -> Tensor:
        """[B, Q, N, K], in -1..1; features carry no gradient, so none is traced."""
        q = F.normalize(query.x.to(self.scale.dtype), dim=-1)
        s = F.normalize(support.x.to(self.scale.dtype), dim=-1)
        batch, ways, shots, steps = support.x.shape[:4]
        pair = q.flatten(1, 2) @ s.flatten(1, 3).transpose(1, 2)
        pair = pair.view(batch, *q.shape[1:3], ways * shots, steps).transpose(2, 3)  # [B, Q, N*K, Tq, Ts]
        q_there, s_there = query.mask()[:, :, None], support.mask().flatten(1, 2)[:, None]
        there = q_there[..., :, None] & s_there[..., None, :]
        heat = (self.sharpness * pair).masked_fill(~there, -1e4)
        of_query = (torch.softmax(heat, -1) * pair).sum(-1) * q_there
        of_support = (torch.softmax(heat, -2) * pair).sum(-2) * s_there
        mean = of_query.sum(-1) / query.length.clamp(min=1)[:, :, None]
        back = of_support.sum(-1) / support.length.clamp(min=1).flatten(1, 2)[:, None]
        return ((mean + back) / 2).unflatten(-1, (ways, shots))


class TaskNorm(nn.Module):
    """Batch normalisation of x [B, P, C, ...] whose batch is one task's P items: tasks never see each other.

    In evaluation it uses running statistics, unless ``batch_statistics`` (released Relation Network scripts never
    leave training mode, which makes their test transductive). Running statistics average the step's tasks.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, batch_statistics: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.momentum, self.batch_statistics = momentum, batch_statistics

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training or self.batch_statistics):
            flat = F.batch_norm(x.flatten(0, 1), self.running_mean, self.running_var, self.weight, self.bias)
            return flat.unflatten(0, x.shape[:2])
        if self.training:
            self._track(x.detach())
        tasks, items = x.shape[:2]
        # Tasks become channels, so that one call normalises each by itself.
        flat = x.transpose(0, 1).flatten(1, 2)
        if flat[:, 0].numel() < 2:
            raise UsageError("Batch statistics need more than one pair a task; use more queries or ways.")
        out = F.batch_norm(
            flat, None, None, self.weight.repeat(tasks), self.bias.repeat(tasks), training=True
        )
        return out.view(items, tasks, *x.shape[2:]).transpose(0, 1)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift [C] of evaluation by running statistics."""
        scale = self.weight / (self.running_var + 1e-5).sqrt()
        return scale, self.bias - scale * self.running_mean

    @torch.no_grad()
    def _track(self, x: Tensor) -> None:
        by_task = x.transpose(1, 2).flatten(2)
        var, mean = torch.var_mean(by_task, dim=-1)
        self.running_mean.lerp_(mean.mean(0).to(self.running_mean), self.momentum)
        self.running_var.lerp_(var.mean(0).to(self.running_var), self.momentum)
