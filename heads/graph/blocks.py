"""Building blocks of the graph heads: nodes, layers over nodes and over pairs of nodes, edge losses.

Nodes of an episode: its N*K supports class by class, then its Q queries; n = N*K + Q. A pair feature is a function of
|x_i - x_j| or its square, hence the same for (i, j) and (j, i).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ..head import Head, Inputs
from ..parts.distances import squared_distances
from ..parts.tensors import flat_support, single
from ..settings import Settings

SLOPE = 0.01  # of the leaky ReLUs of all published graph heads
HASTE = 10.0  # the few numbers of the metric term learn this much faster than the layers


@dataclass(frozen=True)
class GraphSettings(Settings):
    """What every graph head has beside its own.

    embed: width of a learned linear embedding before the graph, from a random orthogonal start; 0 for none. It stands
        in for the published backbone's last layer and keeps the pair layers cheap.
    rescale: multiply features by sqrt(D) first. Cached features have length one, so entries near 1/sqrt(D); layers and
        batch norm are made for entries near one.
    metric: start from a training-free rule: every similarity the graph learns gets the term
        offset - scale * |x_i - x_j|^2 of the features as given (offset and scale learned), and what the published
        layers add starts at zero. False is the published graph alone.
    metric_scale: where the scale starts, for distances in units of the mean squared distance of two base clips.
    smooth: where the part starts that the term's features move, layer by layer, towards their neighbours (learned too).
    """

    embed: int = 64
    rescale: bool = True
    metric: bool = True
    metric_scale: float = 8.0
    smooth: float = 0.3


@dataclass
class Nodes:
    """x [B, n, D] in the dtype of the head's weights; present bool [B, n]; supports: N*K of the n nodes."""

    x: Tensor
    present: Tensor
    supports: int

    def pair_mask(self) -> Tensor:
        """Pairs of nodes that both exist [B, n, n], in the dtype of x."""
        return (self.present[:, :, None] & self.present[:, None, :]).to(self.x.dtype)


def nodes(episodes: Episodes, dtype: torch.dtype) -> Nodes:
    """Supports class by class, then queries, averaged over time."""
    support, query = single(episodes)
    s, present = flat_support(support)
    x = torch.cat([s, query.pooled()], 1).to(dtype)
    return Nodes(x, torch.cat([present, query.present], 1), s.shape[1])


class Embedding(nn.Module):
    """Rescaling and the learned linear map before the graph: [..., D] to [..., width]."""

    def __init__(self, dim: int, settings: GraphSettings) -> None:
        super().__init__()
        self.factor = dim**0.5 if settings.rescale else 1.0
        self.linear = nn.Linear(dim, settings.embed, bias=False) if settings.embed else None
        self.width = settings.embed or dim
        if self.linear is not None:
            nn.init.orthogonal_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.factor
        return x if self.linear is None else self.linear(x)


class Metric(nn.Module):
    """The training-free term of one layer's similarities: offset - scale * |x_i - x_j|^2, after the features themselves
    have moved a part of the way to the mean of their neighbours. Scale, offset and part are learned.
    """

    def __init__(self, scale: float, part: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log() / HASTE)
        self.offset = nn.Parameter(torch.zeros(()))
        self.part = nn.Parameter(torch.logit(torch.tensor(float(part))) / HASTE)

    @staticmethod
    def of(terms: nn.ModuleList, number: int) -> Metric:
        """One term of a list, typed."""
        term = terms[number]
        assert isinstance(term, Metric)
        return term

    def smooth(self, x: Tensor, edge: Tensor) -> Tensor:
        """x [B, n, D] moved along the edges [B, n, n], a node's own left out."""
        weight = F.normalize(without_self(edge), p=1.0, dim=-1)
        return x + torch.sigmoid(HASTE * self.part) * (weight @ x - weight.sum(-1, keepdim=True) * x)

    def forward(self, distance: Tensor) -> Tensor:
        return HASTE * self.offset - (HASTE * self.log_scale).exp() * distance


class GraphHead(Head):
    """What the heads with a metric term share: the size of distances among base clips, for its scale to start from."""

    unit: Tensor

    def __init__(self, inputs: Inputs, settings: Settings | None = None) -> None:
        super().__init__(inputs, settings)
        self.register_buffer("unit", torch.ones(()))

    def fit_base(self, base: FeatureBank) -> None:
        """Measures the mean squared distance of two base clips."""
        self.unit.fill_(mean_square_distance(base))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; features are brought to it."""
        return next(self.parameters()).dtype

    def plain(self, x: Tensor) -> Tensor:
        """Features in units of the distance of two base clips."""
        return x / self.unit.sqrt().to(x.dtype)


def mean_square_distance(bank: FeatureBank) -> float:
    """The mean of |x_i - x_j|^2 over all pairs of clips of the bank's first stream, averaged over time."""
    table = next(iter(bank.tables.values())).pooled()
    x = table.x[table.present, 0].double()
    spread = float((x - x.mean(0)).square().sum(1).mean())
    return 2 * spread if spread > 0 else 1.0


def pair_distances(x: Tensor) -> Tensor:
    """|x_i - x_j|^2 [B, n, n]."""
    return squared_distances(x, x)


class Pointwise(nn.Module):
    """Layers applied alike to every node or pair: linear, batch norm, leaky ReLU each; then ``out`` plain outputs.

    x: [G, ..., C]. drop: probability, per layer, that a channel of a whole graph is zeroed (training only).
    """

    def __init__(
        self,
        inputs: int,
        widths: Sequence[int],
        *,
        bias: bool = False,
        out: int = 0,
        drop: Sequence[float] = (),
        whole_channels: bool = True,
    ) -> None:
        super().__init__()
        sizes = [inputs, *widths]
        self.linear = nn.ModuleList(nn.Linear(a, b, bias) for a, b in itertools.pairwise(sizes))
        self.norm = nn.ModuleList(nn.BatchNorm1d(width) for width in widths)
        self.out = nn.Linear(sizes[-1], out) if out else None
        self.drop = [*drop, *[0.0] * (len(widths) - len(drop))]
        self.whole_channels = whole_channels

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm, rate in zip(self.linear, self.norm, self.drop):
            y = over_rows(norm, linear(x)) if norm.training else F.linear(x, *folded(linear, norm))
            x = F.leaky_relu_(y, SLOPE)
            if rate and self.training:
                x = self._dropped(x, rate)
        return x if self.out is None else self.out(x)

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        if not self.whole_channels:
            return F.dropout(x, rate)
        kept = F.dropout(x.new_ones(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]), rate)
        return x * kept

    @staticmethod
    def of(nets: nn.ModuleList, number: int) -> Pointwise:
        """One net of a list, typed."""
        net = nets[number]
        assert isinstance(net, Pointwise)
        return net

    def silence(self) -> None:
        """Zero output weights: what this net adds starts at nothing."""
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)


def folded(linear: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer and the batch norm after it, in evaluation, as one linear layer."""
    assert isinstance(linear, nn.Linear)
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    assert norm.running_mean is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = -norm.running_mean if linear.bias is None else linear.bias - norm.running_mean
    return linear.weight * scale[:, None], norm.bias + scale * shift


def over_rows(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm over all but the last axis."""
    return norm(x.flatten(0, -2)).view_as(x)


def pairwise(net: Pointwise, x: Tensor, square: bool = False) -> Tensor:
    """net(|x_i - x_j|), or of the square, for all pairs: x [G, n, C] gives [G, n, n].

    In evaluation each unordered pair is computed once; training needs all, for the statistics of batch norm.
    """
    n = x.shape[1]
    if net.training:
        gap = x[:, :, None, :] - x[:, None, :, :]
        return net(gap.square() if square else gap.abs()).squeeze(-1)
    i, j = torch.triu_indices(n, n, device=x.device)
    gap = x[:, i] - x[:, j]
    if gap.requires_grad:
        gap = gap.square() if square else gap.abs()
    else:
        gap = gap.square_() if square else gap.abs_()
    value = net(gap).squeeze(-1)
    place = torch.empty(n, n, dtype=torch.int64, device=x.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=x.device)
    return value[:, place]


def same_class(label: Tensor) -> Tensor:
    """Which pairs of labels [B, n] are equal and known (not -1), bool [B, n, n]."""
    known = label >= 0
    return (label[:, :, None] == label[:, None, :]) & known[:, :, None] & known[:, None, :]


def node_labels(episodes: Episodes) -> Tensor:
    """Labels of supports, then of queries [B, n]; for losses only."""
    support = torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)
    return torch.cat([support.expand(episodes.batch, -1), episodes.query_label], 1)


def without_self(edge: Tensor) -> Tensor:
    """Edges [..., n, n] with the diagonal zeroed."""
    n = edge.shape[-1]
    return edge * (1 - torch.eye(n, dtype=edge.dtype, device=edge.device))


def carry_mass(similarity: Tensor, previous: Tensor) -> Tensor:
    """EGNN's and DPGN's edge normalisation: similarity * previous without the diagonal, rows scaled to sum to what the
    rows of ``previous`` summed to. All [..., n, n].
    """
    previous = without_self(previous)
    mass = previous.sum(-1, keepdim=True)
    return F.normalize(similarity * previous, p=1.0, dim=-1) * mass


def edge_entropy(edge: Tensor, same: Tensor) -> Tensor:
    """Binary cross-entropy of each edge [B, n, n] against ``same`` (1 for a pair of one class)."""
    # Rounding may carry a normalised edge just above one.
    return F.binary_cross_entropy(edge.clamp(0, 1), same.to(edge.dtype), reduction="none")


def balanced(value: Tensor, same: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted pairs of one class plus mean over the counted pairs of two; all [B, n, n]."""
    positive = (same & counted).to(value.dtype)
    negative = (~same & counted).to(value.dtype)
    return (value * positive).sum() / positive.sum().clamp(min=1) + (
        value * negative
    ).sum() / negative.sum().clamp(min=1)


def touching_queries(present: Tensor, supports: int, among_queries: bool = True) -> Tensor:
    """Which pairs of present nodes involve a query, bool [B, n, n]; optionally without those of two queries."""
    query = torch.arange(present.shape[1], device=present.device) >= supports
    either = (query[:, None] | query) if among_queries else (query[:, None] ^ query)
    return either & present[:, :, None] & present[:, None, :]


def nearness(bank: FeatureBank, group: int = 80, neighbours: int = 4) -> float:
    """The mean of |x_i - x_j|^2 to the nearest clips within groups as large as an episode, over that of all pairs.

    Small where clips lie in tight clusters. Of the bank's first stream, averaged over time; groups are drawn once.
    """
    table = next(iter(bank.tables.values())).pooled()
    x = table.x[table.present, 0].double()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)]
    found = []
    for part in x.split(group):
        if len(part) > neighbours:
            distance = torch.cdist(part, part).square().fill_diagonal_(torch.inf)
            found.append(distance.topk(neighbours, largest=False).values.mean())
    return float(torch.stack(found).mean()) / mean_square_distance(bank) if found else 1.0
