"""AMFAR: Active Exploration of Multimodal Complementarity for Few-Shot Action Recognition (Wanyan et al., CVPR 2023).

Each modality has its own few-shot branch, and how certain a branch is of a query tells how far it can be trusted there.
In training the surer branch of a query teaches the others (active mutual distillation, AMD); in testing branches are
weighted by their certainty (adaptive multimodal inference, AMI). Inductive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import Table, TensorTable
from ...episodes.batch import Episodes, Stream
from ...episodes.protocol import Protocol
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.names import module_name
from ..parts.task import work_dtype
from ..scoring.once_per_clip import in_parts
from ..scoring.shortcut import Shortcut
from ..scoring.wrapped import JoinedBranches
from ..settings import CountOrNone, NonNegative, Positive, Rate, Recipe, Settings
from .weights import ModalityWeights, fitted_weights

METHOD_OF_DISTANCE = {"proto": "protonet", "otam": "otam", "trx": "trx"}
CLIPS_A_CLASS = 4  # The unit of a modality's distances is measured on this many queries of each base class.


@dataclass(frozen=True)
class AMFARSettings(Settings):
    """AMFAR's settings."""

    ac: bool = True
    """Choose a query's teacher by the absolute certainty, the greatest posterior; without ``ac`` and ``rc`` every
    branch teaches every query."""
    rc: bool = True
    """Choose a query's teacher by the relative certainty, the negative entropy of the posterior."""
    amd: bool = True
    """Let branches teach one another in training (active mutual distillation)."""
    ami: bool = True
    """Weigh branches by their certainty (adaptive multimodal inference); false: every modality weighs the same."""
    weights: Literal["equal", "base"] = "equal"
    """Fixed weights of the modalities beside the certainties: the same, or what base episodes choose where that is
    better beyond doubt (not in the paper)."""
    teacher: str = "none"
    """The modality that always teaches all others (the paper's T-RGB and T-Flow baselines); "none": the surest one
    does."""
    distance: Literal["proto", "otam", "trx"] = "proto"
    """The distance inside a branch: squared Euclidean to the class mean, OTAM's, or TRX's."""
    weight: NonNegative = 1.0
    """The weight (lambda) of the distillation terms, which is not published."""
    temperature: Positive = 1.0
    """The temperature of the distilled posteriors."""
    level: bool = True
    """Scale each clip so that its mean step has unit length, as pooled features have: otherwise clips whose steps
    differ much are short, and distances say more about that than about content."""
    width: CountOrNone = 64
    """The width of the residual projection that each modality learns; 0 for none."""
    dropout: Rate = 0.5
    """The dropout inside the projection."""
    scale: Positive = 2.0
    """Where the learned scale of each modality's distances starts. Distances are in units of their spread over base
    clips, without which the certainties of different encoders could not be compared."""


class Views(NamedTuple):
    """Every modality's view of the queries.

    names: the M modalities; logits [M, B, Q, N]; present: bool [M, B, Q], whether a query has the modality.
    """

    names: list[str]
    logits: Tensor
    present: Tensor


class AMFAR(Head[AMFARSettings]):
    """A head of two modalities or more.

    With more than two, a query's teacher is the modality whose certainties are the highest of all, and weights are
    normalised over all (our extension). A modality that a query lacks neither teaches, learns nor votes.
    """

    Settings = AMFARSettings
    recipe = Recipe(steps=200, tasks=8, rate=1e-3, weight_decay=1e-4, mix=0.5, evaluate_every=25)
    unit: Tensor

    def __init__(self, inputs: Inputs, settings: AMFARSettings) -> None:
        super().__init__(inputs, settings)
        if settings.teacher != "none" and settings.teacher not in inputs.streams:
            raise unknown("teacher", settings.teacher, ["none", *inputs.streams])
        self.pools = settings.distance == "proto"
        make = inputs.branches[METHOD_OF_DISTANCE[settings.distance]]
        self.heads = {m: make(replace(inputs, streams={m: shape})) for m, shape in inputs.streams.items()}
        self.projections = {
            m: Projection(dim, settings.width, settings.dropout) for m, (_, dim) in inputs.streams.items()
        }
        self.branch = nn.ModuleDict({module_name(m): head for m, head in self.heads.items()})
        self.project = nn.ModuleDict({module_name(m): layer for m, layer in self.projections.items()})
        self.log_scale = nn.ParameterDict(
            {module_name(m): torch.tensor(math.log(settings.scale)) for m in inputs.streams}
        )
        self.register_buffer("unit", torch.ones(len(inputs.streams)))
        self.weights = ModalityWeights.equal(list(inputs.streams))

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: the weighted sum over modalities of minus the distances."""
        views = self.views(episodes)
        class_present = torch.stack([episodes.support[m].present.any(2) for m in views.names]).any(0)
        return neutral(self.joint(views), views.present.any(0), class_present)

    def loss(self, episodes: Episodes) -> Losses:
        """Every branch's cross-entropy, and lambda times what the branches teach one another."""
        views = self.views(episodes)
        parts = {
            f"{m}.ce": present_cross_entropy(views.logits[i], episodes.query_label, views.present[i])
            for i, m in enumerate(views.names)
        }
        total = torch.stack(list(parts.values())).sum()
        if self.settings.amd and len(views.names) > 1:
            parts["distil"] = self.distillation(views)
            total = total + self.settings.weight * parts["distil"]
        return Losses(total, parts)

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        """Logits [B, Q, N] of each modality alone."""
        views = self.views(episodes)
        return dict(zip(views.names, views.logits.unbind(0)))

    def shortcuts(self) -> Iterable[Shortcut]:
        """Clips are projected once, and each branch takes its own best way, where every clip has all modalities."""
        return (JoinedBranches(heads=self.heads, tables=self._projected, join=self._joined, maps_clips=True),)

    def _joined(self, logits: Mapping[str, Tensor]) -> Tensor:
        """Logits [B, Q, N] of those of every branch, for queries that have all modalities."""
        each = torch.stack([self._factor(m) * branch for m, branch in logits.items()])
        present = torch.ones_like(each[..., 0], dtype=torch.bool)
        return self.joint(Views(list(logits), each, present))

    @torch.no_grad()
    def _projected(self, bank: FeatureBank, m: str) -> dict[str, Table]:
        """One modality's clips as its branch compares them."""
        parts = [self.projections[m](self._read(clips)) for clips in in_parts(bank.select([m]))]
        x, length, present = (torch.cat(each) for each in zip(*[(p.x, p.length, p.present) for p in parts]))
        return {m: TensorTable(x, length, present)}

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Measures the unit of each modality's distance: its standard deviation over pairs of base clips."""
        order = torch.argsort(base.label, stable=True)
        rank = torch.arange(len(order), device=order.device) - torch.searchsorted(
            base.label[order], base.label[order]
        )
        first, others = order[rank == 0], order[(rank > 0) & (rank <= CLIPS_A_CLASS)]
        training = self.training
        self.eval()
        for i, (m, head) in enumerate(self.heads.items()):
            support, query = base.tables[m].gather(first)[None, :, None], base.tables[m].gather(others)[None]
            label = torch.zeros(query.present.shape, dtype=torch.int64, device=base.device)
            task = Episodes(
                {m: support}, {m: query}, label, torch.arange(len(first), device=base.device)[None]
            )
            pair_present = query.present[..., None] & support.present.any(2)[:, None]
            distance = -head(self._alone(task, m))[pair_present]
            if len(distance) > 1 and float(distance.std()) > 0:
                self.unit[i] = distance.std()
        self.train(training)

    @property
    def fits_weights(self) -> bool:
        return self.settings.weights == "base"

    def fit_weights(self, base: FeatureBank, task: Protocol) -> None:
        """The untrained branches are weighed in their units, with their certainties if they are used."""
        self.fit_base(base)

        def join(logits: Tensor, factors: Tensor) -> Tensor:
            share = absolute_certainty(logits) if self.settings.ami else torch.ones_like(logits[..., 0])
            share = share * factors[:, None, None]
            return (share[..., None] * logits).sum(0) / share.sum(0)[..., None]

        names = list(self.inputs.streams)
        self.weights = fitted_weights(
            base, task, names, views=lambda episodes: self.views(episodes).logits, join=join
        )

    def views(self, episodes: Episodes) -> Views:
        """The views of every modality that both support and query carry, -psi(q_i^m, t_k^m) in the paper.

        Raises UsageError where there is none.
        """
        names = [m for m in self.inputs.streams if m in episodes.support and m in episodes.query]
        if not names:
            raise UsageError(
                "AMFAR needs a modality that both support and query carry; use --method common-space."
            )
        logits = torch.stack([self._logits_of(m, episodes) for m in names])
        return Views(names, logits, torch.stack([episodes.query[m].present for m in names]))

    def joint(self, views: Views) -> Tensor:
        """Logits [B, Q, N]: the sum over modalities of w_i^m times their logits."""
        return (self.modality_weights(views)[..., None] * views.logits).sum(0)

    def modality_weights(self, views: Views) -> Tensor:
        """w [M, B, Q]: each modality's share of the certainty (AMI), or equal shares; 0 where the query lacks it."""
        present = views.present.to(views.logits.dtype)
        share = absolute_certainty(views.logits) * present if self.settings.ami else present
        if not self.weights.are_equal:
            share = share * self.weights.of(views.names, share)[:, None, None]
        return share / share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)

    def distillation(self, views: Views) -> Tensor:
        """The sum over ordered pairs (m, o) of the certainty-weighted mean KL(p^m || p^o) over the queries m teaches.

        Teacher and weights carry no gradient; a pair without queries contributes nothing.
        """
        log_p = F.log_softmax(views.logits / self.settings.temperature, -1)
        taught = self.taught_queries(views)
        certainty = absolute_certainty(views.logits).detach()
        terms = []
        for m in range(len(views.names)):
            for o in range(len(views.names)):
                if m != o:
                    weight = certainty[m] * (taught[m] & views.present[o])
                    gap = F.kl_div(log_p[o], log_p[m].detach(), reduction="none", log_target=True).sum(-1)
                    terms.append((weight * gap).sum() / weight.sum().clamp(min=1e-6))
        return torch.stack(terms).sum()

    def taught_queries(self, views: Views) -> Tensor:
        """Active sample selection: Q^m, the queries that modality m teaches, bool [M, B, Q]."""
        if self.settings.teacher != "none":
            fixed = torch.tensor([m == self.settings.teacher for m in views.names])
            return views.present & fixed.to(views.present.device)[:, None, None]
        chosen = views.present
        if self.settings.ac:
            chosen = chosen & strictly_highest(absolute_certainty(views.logits), views.present)
        if self.settings.rc:
            chosen = chosen & strictly_highest(relative_certainty(views.logits), views.present)
        return chosen

    def _logits_of(self, m: str, episodes: Episodes) -> Tensor:
        """One modality's logits [B, Q, N]."""
        alone, project = self._alone(episodes, m), self.projections[m]
        alone.support[m], alone.query[m] = project(alone.support[m]), project(alone.query[m])
        return self._factor(m) * self.heads[m](alone)

    def _factor(self, m: str) -> Tensor:
        """What a modality's distances are multiplied by: their learned scale over their unit."""
        return self.log_scale[module_name(m)].exp() / self.unit[list(self.inputs.streams).index(m)]

    def _alone(self, episodes: Episodes, m: str) -> Episodes:
        """The episodes with one modality, whose clips are read, and without words."""
        support, query = {m: self._read(episodes.support[m])}, {m: self._read(episodes.query[m])}
        return replace(episodes, support=support, query=query, words=None, unlabelled=None)

    def _read(self, stream: Stream) -> Stream:
        """Clips in the weights' dtype, averaged over time where the distance ignores it, and levelled."""
        stream = stream.to(stream.x.device, work_dtype(stream.x.dtype, self))
        mean = stream.pooled()
        length = torch.ones_like(mean[..., :1])
        if self.settings.level:
            length = mean.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        if self.pools:
            steps = stream.present.to(stream.length.dtype)
            return Stream((mean / length)[..., None, :], stream.present, steps)
        return Stream(stream.x / length[..., None], stream.present, stream.length)


class Projection(nn.Module):
    """x + U relu(V x), step by step; U starts at zero, so that the untrained head sees the features themselves.

    Features of unit length are read as sqrt(D) x, whose entries are of order one.
    """

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.gain = math.sqrt(dim)
        self.net: nn.Sequential | None = None
        if width:
            last = nn.Linear(width, dim, bias=False)
            nn.init.zeros_(last.weight)
            self.net = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout), last)

    def forward(self, stream: Stream) -> Stream:
        if self.net is None:
            return stream
        update = self.net(stream.x * self.gain) / self.gain
        valid = stream.mask()[..., None].to(stream.x.dtype)
        return Stream(stream.x + update * valid, stream.present, stream.length)


def absolute_certainty(logits: Tensor) -> Tensor:
    """The greatest posterior c, [...] of logits [..., N]."""
    return torch.softmax(logits, -1).amax(-1)


def relative_certainty(logits: Tensor) -> Tensor:
    """The negative entropy h of the posterior, [...] of logits [..., N]."""
    log_p = F.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum(-1)


def strictly_highest(value: Tensor, present: Tensor) -> Tensor:
    """Which modality exceeds every other that is present, bool [M, B, Q] of value and present [M, B, Q].

    It is false everywhere for a query with a single modality, which has no other one to teach.
    """
    masked = value.masked_fill(~present, -torch.inf)
    top, second = masked.topk(2, dim=0).values if len(value) > 1 else (masked[0], masked[0])
    return present & (masked == top) & (top > second) & (second > -torch.inf)


def present_cross_entropy(logits: Tensor, label: Tensor, present: Tensor) -> Tensor:
    """The mean cross-entropy over the queries that are present, bool [B, Q], and labelled; 0 where there is none."""
    counted = present
    if label.ndim == 3:
        each = F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none").mean(-1)
    else:
        each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1, reduction="none")
        each, counted = each.view_as(label), present & (label >= 0)
    return (each * counted).sum() / counted.sum().clamp(min=1)
