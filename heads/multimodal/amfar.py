"""AMFAR: Active Exploration of Multimodal Complementarity for Few-Shot Action Recognition (Wanyan et al., CVPR 2023).

Each modality has its own few-shot branch, and how certain a branch is of a query tells how far it can be trusted there.
In training the surer branch of a query teaches the others (active mutual distillation, AMD); in testing branches are
weighted by their certainty (adaptive multimodal inference, AMI). Inductive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import TensorTable
from ...episodes.batch import Episodes, Stream
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError, unknown
from ..head import Head, Inputs, Losses, Scorer
from ..parts.absence import neutral
from ..parts.task import work_dtype
from ..registry import find
from ..scoring.gram import repeats
from ..scoring.once_per_clip import in_parts
from ..settings import Recipe, Settings

DISTANCES = {"proto": "protonet", "otam": "otam", "trx": "trx"}
_PER_CLASS = 4  # base clips a class whose distances give a modality's unit


@dataclass(frozen=True)
class AMFARSettings(Settings):
    """ac, rc: which certainties choose a query's teacher: absolute (the greatest posterior), relative (the negative
    entropy). With neither, every branch teaches every query. amd, ami: distillation and certainty weights on or off;
    AMI off gives every modality the same weight.

    teacher: "none" (active), or the modality that always teaches all others (the paper's T-RGB and T-Flow baselines).
    distance: inside a branch: "proto" (squared Euclidean to the class mean), "otam" or "trx".
    weight: lambda, of the distillation terms (not published; 1). temperature: of the distilled posteriors.
    level: scale each clip so that its mean step has unit length, as pooled features have: otherwise clips whose steps
        differ much are short, and distances say more about that than about content.
    width: of the residual projection that each modality learns; 0 for none. dropout: inside it.
    scale: of the distances, learned for each modality from this start. Distances are in units of their spread over base
    clips, without which the certainties of different encoders could not be compared.
    """

    ac: bool = True
    rc: bool = True
    amd: bool = True
    ami: bool = True
    teacher: str = "none"
    distance: str = "proto"
    weight: float = 1.0
    temperature: float = 1.0
    level: bool = True
    width: int = 64
    dropout: float = 0.5
    scale: float = 2.0


class Branches(NamedTuple):
    """Every modality's view: logits [M, B, Q, N], and whether the query has the modality, bool [M, B, Q]."""

    names: list[str]
    logits: Tensor
    present: Tensor


class AMFAR(Head):
    """Takes two modalities or more: with more, a query's teacher is the modality whose certainties are the highest of
    all, and weights are normalised over all (our extension). A modality that a query lacks neither teaches, learns nor
    votes.
    """

    settings_class = AMFARSettings
    recipe = Recipe(steps=200, tasks=8, rate=1e-3, weight_decay=1e-4, mix=0.5, evaluate_every=25)
    sequences = True
    light = True
    branch: nn.ModuleDict
    unit: Tensor

    def __init__(self, inputs: Inputs, settings: AMFARSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        if own.distance not in DISTANCES:
            raise unknown("distance", own.distance, DISTANCES)
        if own.teacher != "none" and own.teacher not in inputs.streams:
            raise unknown("teacher", own.teacher, ["none", *inputs.streams])
        self.pool = own.distance == "proto"
        cls = find(DISTANCES[own.distance])[0].load()
        self.branch = nn.ModuleDict(
            {m: cls(replace(inputs, streams={m: shape})) for m, shape in inputs.streams.items()}
        )
        self.project = nn.ModuleDict(
            {m: Projection(dim, own.width, own.dropout) for m, (_, dim) in inputs.streams.items()}
        )
        self.log_scale = nn.ParameterDict({m: torch.tensor(math.log(own.scale)) for m in inputs.streams})
        self.register_buffer("unit", torch.ones(len(inputs.streams)))

    def forward(self, episodes: Episodes) -> Tensor:
        """Log posteriors' logits: sum over modalities of w_i^m times minus the distance."""
        seen = self.views(episodes)
        fused = (self.trust(seen)[..., None] * seen.logits).sum(0)
        known = torch.stack([episodes.support[m].present.any(2) for m in seen.names]).any(0)
        return neutral(fused, seen.present.any(0), known)

    def loss(self, episodes: Episodes) -> Losses:
        """Every branch's cross-entropy, and lambda times what the branches teach one another."""
        seen = self.views(episodes)
        parts = {
            f"{m}.ce": present_cross_entropy(seen.logits[i], episodes.query_label, seen.present[i])
            for i, m in enumerate(seen.names)
        }
        total = torch.stack(list(parts.values())).sum()
        if self.settings.amd and len(seen.names) > 1:
            parts["distil"] = self.distillation(seen)
            total = total + self.settings.weight * parts["distil"]
        return Losses(total, parts)

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        seen = self.views(episodes)
        return dict(zip(seen.names, seen.logits.unbind(0)))

    def scorer(
        self, bank: FeatureBank, protocol: Protocol, episodes: int, unlabelled: FeatureBank | None = None
    ) -> Scorer:
        """Each branch in its own way, over clips that are projected once; where every clip has all modalities."""
        if not repeats(bank, protocol, episodes):
            return super().scorer(bank, protocol, episodes, unlabelled)
        heads = self._heads()
        each = {m: heads[m].scorer(self._projected(bank, m), protocol, episodes) for m in bank.tables}

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            logits = torch.stack([self._factor(m) * branch(index) for m, branch in each.items()])
            seen = Branches(list(each), logits, torch.ones_like(logits[..., 0], dtype=torch.bool))
            return (self.trust(seen)[..., None] * logits).sum(0)

        return Scorer(score, all(branch.of_numbers for branch in each.values()))

    @torch.no_grad()
    def _projected(self, bank: FeatureBank, m: str) -> FeatureBank:
        """One modality's clips as its branch compares them."""
        alone = bank.select([m])
        parts = [self.project[m](self._read(clips)) for clips in in_parts(alone)]
        x, length, present = (torch.cat(each) for each in zip(*[(p.x, p.length, p.present) for p in parts]))
        return replace(alone, tables={m: TensorTable(x, length, present)})

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        return max(inner.episode_bytes(ways, shots, queries) for inner in self._heads().values())

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """The unit of each modality's distance: its standard deviation over pairs of base clips."""
        order = torch.argsort(base.label, stable=True)
        rank = torch.arange(len(order), device=order.device) - torch.searchsorted(
            base.label[order], base.label[order]
        )
        first, others = order[rank == 0], order[(rank > 0) & (rank <= _PER_CLASS)]
        training = self.training
        self.eval()
        for i, (m, head) in enumerate(self._heads().items()):
            support, query = base.tables[m].gather(first)[None, :, None], base.tables[m].gather(others)[None]
            label = torch.zeros(query.present.shape, dtype=torch.int64, device=base.device)
            task = Episodes(
                {m: support}, {m: query}, label, torch.arange(len(first), device=base.device)[None]
            )
            there = query.present[..., None] & support.present.any(2)[:, None]
            distance = -head(self._alone(task, m))[there]
            if len(distance) > 1 and float(distance.std()) > 0:
                self.unit[i] = distance.std()
        self.train(training)

    def views(self, episodes: Episodes) -> Branches:
        """-psi(q_i^m, t_k^m) of every modality that both support and query carry. Raises UsageError where none is."""
        names = [m for m in self.inputs.streams if m in episodes.support and m in episodes.query]
        if not names:
            raise UsageError(
                "AMFAR needs a modality that both support and query carry; use --method common-space."
            )
        logits = torch.stack([self._branch(m, episodes) for m in names])
        return Branches(names, logits, torch.stack([episodes.query[m].present for m in names]))

    def trust(self, seen: Branches) -> Tensor:
        """w [M, B, Q]: each modality's share of the certainty (AMI), or equal shares; 0 where the query lacks it."""
        here = seen.present.to(seen.logits.dtype)
        share = absolute_certainty(seen.logits) * here if self.settings.ami else here
        return share / share.sum(0).clamp(min=torch.finfo(share.dtype).tiny)

    def distillation(self, seen: Branches) -> Tensor:
        """Sum over ordered pairs of L_{m->o}, the certainty-weighted mean KL(p^m || p^o) over the queries m teaches.

        Teacher and weights carry no gradient; a pair without queries contributes nothing.
        """
        log_p = F.log_softmax(seen.logits / self.settings.temperature, -1)
        groups = self.groups(seen)
        certainty = absolute_certainty(seen.logits).detach()
        terms = []
        for m in range(len(seen.names)):
            for o in range(len(seen.names)):
                if m != o:
                    weight = certainty[m] * (groups[m] & seen.present[o])
                    gap = F.kl_div(log_p[o], log_p[m].detach(), reduction="none", log_target=True).sum(-1)
                    terms.append((weight * gap).sum() / weight.sum().clamp(min=1e-6))
        return torch.stack(terms).sum()

    def groups(self, seen: Branches) -> Tensor:
        """Active sample selection: Q^m, the queries that modality m teaches, bool [M, B, Q]."""
        own = self.settings
        if own.teacher != "none":
            fixed = torch.tensor([m == own.teacher for m in seen.names], device=seen.present.device)
            return seen.present & fixed[:, None, None]
        chosen = seen.present
        if own.ac:
            chosen = chosen & strictly_highest(absolute_certainty(seen.logits), seen.present)
        if own.rc:
            chosen = chosen & strictly_highest(relative_certainty(seen.logits), seen.present)
        return chosen

    def _branch(self, m: str, episodes: Episodes) -> Tensor:
        """One modality's logits [B, Q, N]."""
        alone = self._alone(episodes, m)
        alone.support[m], alone.query[m] = self.project[m](alone.support[m]), self.project[m](alone.query[m])
        return self._factor(m) * self._heads()[m](alone)

    def _factor(self, m: str) -> Tensor:
        """Of a modality's distances."""
        return self.log_scale[m].exp() / self.unit[list(self.inputs.streams).index(m)]

    def _alone(self, episodes: Episodes, m: str) -> Episodes:
        """The episodes with one modality, in the weights' dtype; averaged over time where the distance ignores it."""
        support, query = {m: self._read(episodes.support[m])}, {m: self._read(episodes.query[m])}
        return replace(episodes, support=support, query=query, words=None, unlabelled=None)

    def _read(self, stream: Stream) -> Stream:
        stream = stream.to(stream.x.device, work_dtype(stream.x.dtype, self))
        mean = stream.pooled()
        length = mean.norm(dim=-1, keepdim=True).clamp(min=1e-6) if self.settings.level else 1.0
        if self.pool:
            steps = stream.present.to(stream.length.dtype)
            return Stream((mean / length)[..., None, :], stream.present, steps)
        shorter = length[..., None] if isinstance(length, Tensor) else length
        return Stream(stream.x / shorter, stream.present, stream.length)

    def _heads(self) -> dict[str, Head]:
        return {m: head for m, head in self.branch.items() if isinstance(head, Head)}


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
    """c: the greatest posterior, [...] of logits [..., N]."""
    return torch.softmax(logits, -1).amax(-1)


def relative_certainty(logits: Tensor) -> Tensor:
    """h: the negative entropy of the posterior, [...] of logits [..., N]."""
    log_p = F.log_softmax(logits, -1)
    return (log_p.exp() * log_p).sum(-1)


def strictly_highest(value: Tensor, present: Tensor) -> Tensor:
    """Which modality exceeds every other that is there, bool [M, B, Q] of value and present [M, B, Q].

    Nobody is where a query has a single modality: there is no one to teach.
    """
    masked = value.masked_fill(~present, -torch.inf)
    top, second = masked.topk(2, dim=0).values if len(value) > 1 else (masked[0], masked[0])
    return present & (masked == top) & (top > second) & (second > -torch.inf)


def present_cross_entropy(logits: Tensor, label: Tensor, present: Tensor) -> Tensor:
    """Mean cross-entropy over the queries that are present [B, Q] and labelled; 0 where there is none."""
    if label.ndim == 3:
        each = F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), reduction="none").mean(-1)
        there = present
    else:
        each = F.cross_entropy(logits.flatten(0, 1), label.flatten(), ignore_index=-1, reduction="none")
        each = each.view_as(label)
        there = present & (label >= 0)
    return (each * there).sum() / there.sum().clamp(min=1)
