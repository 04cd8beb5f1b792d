"""Building blocks of the graph heads: nodes, layers over nodes and over pairs of nodes, edge losses.

The nodes of an episode are its N*K supports, class by class, and then its Q queries: n = N*K + Q. A feature of a pair
is a function of |x_i - x_j| or of its square, and therefore the same for (i, j) and (j, i).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.distances import squared_distances
from ..parts.tensors import class_sum, flat_support, single
from ..settings import CountOrNone, NonNegative, Settings, Share

LEAKY_SLOPE = 0.01  # The leaky ReLUs of all published graph heads have this slope below zero.
EDGE_FLOOR = 1e-6  # EGNN and DPGN add this to every edge before they scale edges to a sum of one.
# The few numbers of a distance term learn this many times as fast as the layers: parameters hold them over it.
TERM_SPEED = 10.0


@dataclass(frozen=True)
class GraphSettings(Settings):
    """What GNN, EGNN and DPGN all let their user choose."""

    embed: CountOrNone = 64
    """The width of a learned linear embedding before the graph, begun as a random orthogonal map; 0 for none. It stands
    in for the published backbone's last layer and keeps the pair layers cheap."""
    rescale: bool = True
    """Multiply features by sqrt(D) first: cached features have length one, so entries near 1/sqrt(D), and layers and
    batch norm are made for entries near one."""
    metric: bool = True
    """Start from a training-free rule: every similarity that the graph learns gets the term offset - scale *
    |x_i - x_j|^2 of the features as given (offset and scale are learned), and what the published layers add starts at
    zero; false: the published graph alone."""
    metric_scale: NonNegative = 8.0
    """Where that term's scale starts, for distances in units of the mean squared distance of two base clips."""
    smooth: Share = 0.3
    """The part of the way to their neighbours that the term's features move in every layer at the start (it is
    learned)."""


@dataclass
class Nodes:
    """The nodes of B graphs: features x [B, n, D] in the dtype of the head's weights, and present, bool [B, n].

    The first ``supports`` of the n nodes are supports, class by class; the others are queries.
    """

    x: Tensor
    present: Tensor
    supports: int

    @property
    def queries(self) -> int:
        """The number of queries of a graph."""
        return self.x.shape[1] - self.supports

    def pair_present(self) -> Tensor:
        """1 for pairs of nodes that are both present and 0 for others, [B, n, n] in the dtype of x."""
        return (self.present[:, :, None] & self.present[:, None, :]).to(self.x.dtype)

    def class_present(self, ways: int) -> Tensor:
        """Which of the ``ways`` classes have a present support, bool [B, N]."""
        return self.present[:, : self.supports].unflatten(1, (ways, -1)).any(2)

    def supports_of_one_class(self, ways: int) -> Tensor:
        """1 for pairs of supports of one class and 0 for others, [N*K, N*K] in the dtype of x."""
        label = torch.arange(ways, device=self.x.device).repeat_interleave(self.supports // ways)
        return (label[:, None] == label).to(self.x.dtype)


def nodes_of(episodes: Episodes, dtype: torch.dtype) -> Nodes:
    """The clips of episodes of one modality, averaged over time, as nodes."""
    support, query = single(episodes)
    s, present = flat_support(support)
    x = torch.cat([s, query.pooled()], 1).to(dtype)
    return Nodes(x, torch.cat([present, query.present], 1), s.shape[1])


class Embedding(nn.Module):
    """The rescaling and the learned linear map before the graph: [..., D] to [..., width]."""

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


class DistanceTerm(nn.Module):
    """The training-free term of one layer's similarities: offset - scale * |x_i - x_j|^2.

    Before distances are taken, the features have moved a part of the way to the mean of their neighbours. Scale, offset
    and part are learned; the parameters hold the logarithm of the scale and the logit of the part.
    """

    def __init__(self, scale: float, part: float) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log() / TERM_SPEED)
        self.offset = nn.Parameter(torch.zeros(()))
        self.part = nn.Parameter(torch.logit(torch.tensor(float(part))) / TERM_SPEED)

    def smoothed(self, x: Tensor, edge: Tensor) -> Tensor:
        """Features x [B, n, D] moved along the edges [B, n, n]; a node's edge to itself does not count."""
        weight = F.normalize(without_self(edge), p=1.0, dim=-1)
        return x + torch.sigmoid(TERM_SPEED * self.part) * (weight @ x - weight.sum(-1, keepdim=True) * x)

    def forward(self, distance: Tensor) -> Tensor:
        """The term of squared distances of any shape."""
        return TERM_SPEED * self.offset - (TERM_SPEED * self.log_scale).exp() * distance


def distance_terms(settings: GraphSettings, nets: Sequence[Pointwise]) -> list[DistanceTerm | None]:
    """A term to add to the output of each net, whose own output then starts at zero; Nones where ``metric`` is off."""
    if not settings.metric:
        return [None] * len(nets)
    for net in nets:
        net.zero_output()
    return [DistanceTerm(settings.metric_scale, settings.smooth) for _ in nets]


def learned_terms(terms: Iterable[DistanceTerm | None]) -> nn.ModuleList:
    """The terms that exist, for a module to register."""
    return nn.ModuleList(term for term in terms if term is not None)


def add_distance_term(
    term: DistanceTerm | None, logit: Tensor, x: Tensor, edge: Tensor
) -> tuple[Tensor, Tensor]:
    """logit [B, n, n] plus the term of features x [B, n, D] that moved along ``edge`` [B, n, n]; and these features.

    Without a term both are handed back as they are.
    """
    if term is None:
        return logit, x
    x = term.smoothed(x, edge)
    return logit + term(pair_distances(x)), x


G = TypeVar("G", bound=Settings)


class GraphHead(Head[G]):
    """A head that measures distances in units of the mean squared distance of two base clips.

    The unit is one before ``fit_base``.
    """

    unit: Tensor

    def __init__(self, inputs: Inputs, settings: G) -> None:
        super().__init__(inputs, settings)
        self.register_buffer("unit", torch.ones(()))

    def fit_base(self, base: FeatureBank) -> None:
        """Measures the mean squared distance of two base clips."""
        self.unit.fill_(mean_square_distance(base))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights, to which features are brought."""
        return next(self.parameters()).dtype

    def in_units(self, x: Tensor) -> Tensor:
        """Features x of any shape, scaled so that two base clips are at a mean squared distance of one."""
        return x / self.unit.sqrt().to(x.dtype)


def mean_square_distance(bank: FeatureBank) -> float:
    """The mean of |x_i - x_j|^2 over all pairs of clips of the bank's first stream, averaged over time."""
    table = next(iter(bank.tables.values())).pooled()
    x = table.x[table.present, 0].double()
    spread = float((x - x.mean(0)).square().sum(1).mean())
    return 2 * spread if spread > 0 else 1.0


def neighbour_distance_ratio(bank: FeatureBank, group: int = 80, neighbours: int = 4) -> float:
    """The mean of |x_i - x_j|^2 to a clip's nearest clips, over that of all pairs.

    It is small where clips lie in tight clusters. Neighbours are sought within groups of clips as large as an episode,
    drawn once. The bank's first stream, averaged over time, is measured; 1 where there are too few clips.
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


def pair_distances(x: Tensor) -> Tensor:
    """|x_i - x_j|^2 [..., n, n] of x [..., n, D], by one product."""
    return squared_distances(x, x)


class Pointwise(nn.Module):
    """Layers applied alike to every node or pair: linear, batch norm, leaky ReLU each; then ``out`` plain outputs.

    They map x [G, ..., C]. drop: for each layer the probability that a channel is zeroed in training, in a whole graph,
    or, without ``whole_channels``, each entry by itself.
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
        self.linears = [nn.Linear(a, b, bias) for a, b in itertools.pairwise(sizes)]
        self.norms = [nn.BatchNorm1d(width) for width in widths]
        self.linear, self.norm = nn.ModuleList(self.linears), nn.ModuleList(self.norms)
        self.out = nn.Linear(sizes[-1], out) if out else None
        self.drop = [*drop, *[0.0] * (len(widths) - len(drop))]
        self.whole_channels = whole_channels

    def forward(self, x: Tensor) -> Tensor:
        for linear, norm, rate in zip(self.linears, self.norms, self.drop):
            y = over_rows(norm, linear(x)) if norm.training else F.linear(x, *folded(linear, norm))
            x = F.leaky_relu_(y, LEAKY_SLOPE)
            if rate and self.training:
                x = self._dropped(x, rate)
        return x if self.out is None else self.out(x)

    def _dropped(self, x: Tensor, rate: float) -> Tensor:
        if not self.whole_channels:
            return F.dropout(x, rate)
        kept = F.dropout(x.new_ones(x.shape[0], *[1] * (x.ndim - 2), x.shape[-1]), rate)
        return x * kept

    def zero_output(self) -> None:
        """Set the output weights to zero, so that what this net adds to something else starts at nothing."""
        if self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)


def folded(linear: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a linear layer and the batch norm after it, in evaluation, as one linear layer."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise TypeError("A batch norm without running statistics cannot be folded into the layer before it")
    scale = norm.weight / (variance + norm.eps).sqrt()
    shift = -mean if linear.bias is None else linear.bias - mean
    return linear.weight * scale[:, None], norm.bias + scale * shift


def over_rows(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm of x over all but the last axis."""
    return norm(x.flatten(0, -2)).view_as(x)


def pair_values(net: Pointwise, x: Tensor, *, squared: bool = False) -> Tensor:
    """net(|x_i - x_j|), or of the square, for all pairs: x [G, n, C] gives [G, n, n].

    In evaluation each unordered pair is computed once; training needs all, for the statistics of batch norm.
    """
    n = x.shape[1]
    if net.training:
        gap = x[:, :, None, :] - x[:, None, :, :]
        return net(gap.square() if squared else gap.abs()).squeeze(-1)
    i, j = torch.triu_indices(n, n, device=x.device)
    gap = x[:, i] - x[:, j]
    if gap.requires_grad:
        gap = gap.square() if squared else gap.abs()
    else:
        gap = gap.square_() if squared else gap.abs_()
    value = net(gap).squeeze(-1)
    place = torch.empty(n, n, dtype=torch.int64, device=x.device)
    place[i, j] = place[j, i] = torch.arange(len(i), device=x.device)
    return value[:, place]


def same_class(label: Tensor) -> Tensor:
    """Which pairs of labels [B, n] are equal, bool [B, n, n]; a label of -1 equals none."""
    labelled = label >= 0
    return (label[:, :, None] == label[:, None, :]) & labelled[:, :, None] & labelled[:, None, :]


def node_labels(episodes: Episodes) -> Tensor:
    """The labels of supports, then of queries, int64 [B, n]; for losses only."""
    support = torch.arange(episodes.ways, device=episodes.device).repeat_interleave(episodes.shots)
    return torch.cat([support.expand(episodes.batch, -1), episodes.query_label], 1)


def without_self(edge: Tensor) -> Tensor:
    """Edges [..., n, n] with zeros on the diagonal."""
    n = edge.shape[-1]
    return edge * (1 - torch.eye(n, dtype=edge.dtype, device=edge.device))


def row_mass_kept(similarity: Tensor, previous: Tensor) -> Tensor:
    """EGNN's and DPGN's edge update: similarity * previous without the diagonal, all [..., n, n].

    Rows are scaled to sum to what the rows of ``previous``, without the diagonal, sum to.
    """
    previous = without_self(previous)
    mass = previous.sum(-1, keepdim=True)
    return F.normalize(similarity * previous, p=1.0, dim=-1) * mass


def query_votes(graph: Nodes, edge: Tensor, ways: int) -> Tensor:
    """Logits [B, Q, N]: the sum of a query's edges to the supports of each class; edge [B, n, n]."""
    s = graph.supports
    return neutral(class_sum(edge[:, s:, :s], ways), graph.present[:, s:], graph.class_present(ways))


def edge_cross_entropy(edge: Tensor, same: Tensor) -> Tensor:
    """The binary cross-entropy of each edge [B, n, n] against ``same`` (true for a pair of one class), [B, n, n]."""
    # Rounding may bring a normalised edge just above one.
    return F.binary_cross_entropy(edge.clamp(0, 1), same.to(edge.dtype), reduction="none")


def balanced_mean(value: Tensor, same: Tensor, counted: Tensor) -> Tensor:
    """The mean of value over the counted pairs of one class, plus that over the counted pairs of two.

    value, same (bool: one class) and counted (bool) share a shape, as [B, n, n]. A kind without pairs adds nothing.
    """
    means = []
    for kind in (same & counted, ~same & counted):
        weight = kind.to(value.dtype)
        means.append((value * weight).sum() / weight.sum().clamp(min=1))
    return means[0] + means[1]


def touching_queries(present: Tensor, supports: int, *, among_queries: bool = True) -> Tensor:
    """Which pairs of present nodes involve a query, bool [B, n, n] of present, bool [B, n].

    among_queries: whether pairs of two queries belong to them.
    """
    query = torch.arange(present.shape[1], device=present.device) >= supports
    either = (query[:, None] | query) if among_queries else (query[:, None] ^ query)
    return either & present[:, :, None] & present[:, None, :]
