"""TPN: Learning to Propagate Labels (Liu, Lee, Park, Kim, Kim, Hwang and Yang, ICLR 2019).

All supports and queries form one graph whose edges are a Gaussian of their distance, each sample with a length scale of
its own that a small relation net reads off its features. Labels spread over the k nearest neighbours in closed form.
Transductive: queries share labels through one another; no label and no class balance of theirs is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..scoring.gram import FromGram, Products
from ..scoring.once_per_clip import in_parts
from ..scoring.shortcut import Shortcut
from ..settings import Count, CountOrNone, NonNegative, Range, Recipe, Settings
from .blocks import GraphHead, Nodes, neighbour_distance_ratio, node_labels, nodes_of, pair_distances

EPSILON = 2.220446049250313e-16  # The released code adds float64's epsilon, whatever the precision.
MAP_WIDTH = 64


@dataclass(frozen=True)
class TPNSettings(Settings):
    """TPN's settings."""

    neighbours: CountOrNone = 20
    """The number of neighbours in the graph, a sample itself counted; 0 for the full graph."""
    alpha: Annotated[float, Range(0, 1, low_open=True, high_open=True)] = 0.99
    """How far labels spread."""
    learn_alpha: bool = False
    """Train alpha (the released code's rn = 30) or keep it (rn = 300)."""
    embed: CountOrNone = 0
    """The width of a learned linear embedding; 0 for none."""
    rescale: bool = True
    """Take features in units of the distance of two base clips, times sqrt(D)."""
    sigma: NonNegative = 0.4
    """Where every length scale of rescaled features starts, as a multiple of how near the neighbours of base clips are;
    0 for the published random start."""
    hidden: Count = 8
    """The width of the relation net on vectors."""
    side: CountOrNone = 0
    """The side of feature maps [D / side^2, side, side], for the published relation net with two convolutions; 0 for
    vectors."""
    support_loss: bool = True
    """Count the cross-entropy over the supports as well, as published."""


@dataclass
class Propagation:
    """What one pass leaves for graphs of n nodes and N classes.

    sigma [B, n, 1]: length scales; weight [B, n, n]: edges after the neighbours were chosen; smooth [B, n, n]: these
    edges normalised; label [B, n, N]: what has spread of each class.
    """

    sigma: Tensor
    weight: Tensor
    smooth: Tensor
    label: Tensor


class TPN(GraphHead[TPNSettings]):
    Settings = TPNSettings
    recipe = Recipe(
        steps=200,
        tasks=4,
        query=10,
        rate=1e-3,
        decay_every=100,
        evaluate_every=50,
        evaluate_episodes=200,
        patience=4,
    )

    def __init__(self, inputs: Inputs, settings: TPNSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        if settings.side and dim % settings.side**2:
            raise UsageError(
                f"{dim} features are not maps of {settings.side} x {settings.side}; choose another side."
            )
        self.factor = dim**0.5 if settings.rescale else 1.0
        self.encoder = nn.Linear(dim, settings.embed, bias=False) if settings.embed else None
        self.width = settings.embed or dim
        if self.encoder is not None:
            nn.init.orthogonal_(self.encoder.weight)
        self.relation = MapScale(dim, settings) if settings.side else VectorScale(self.width, settings)
        if settings.sigma:
            nn.init.zeros_(self.relation.last.weight)
            nn.init.constant_(self.relation.last.bias, settings.sigma)
        self.alpha = nn.Parameter(torch.tensor(settings.alpha), requires_grad=settings.learn_alpha)

    def fit_base(self, base: FeatureBank) -> None:
        """Measures distances of base clips; length scales start in proportion to how near neighbours are."""
        super().fit_base(base)
        if self.settings.sigma:
            nn.init.constant_(self.relation.last.bias, self.settings.sigma * neighbour_distance_ratio(base))

    def forward(self, episodes: Episodes) -> Tensor:
        graph, spread = self._spread(episodes)
        queries = slice(graph.supports, None)
        return neutral(
            spread.label[:, queries], graph.present[:, queries], graph.class_present(episodes.ways)
        )

    def loss(self, episodes: Episodes) -> Losses:
        """The mean cross-entropy of the spread labels, taken as logits, over the supports too (``support_loss``)."""
        graph, spread = self._spread(episodes)
        label = node_labels(episodes).masked_fill(~graph.present, -1)
        if not self.settings.support_loss:
            label[:, : graph.supports] = -1
        value = F.cross_entropy(spread.label.flatten(0, 1), label.flatten(), ignore_index=-1)
        return Losses(value, {"ce": value})

    def _spread(self, episodes: Episodes) -> tuple[Nodes, Propagation]:
        graph = nodes_of(episodes, self.dtype)
        start = F.one_hot(node_labels(episodes)[:, : graph.supports], episodes.ways)
        return graph, self.propagate(graph, start)

    def shortcuts(self) -> Iterable[Shortcut]:
        """The weights of all pairs of clips are found once."""
        return (FromGram(scorer=self._label_spreader, points=self.points),)

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor:
        """Every clip of a bank over its own length scale, [n, D]."""
        clips = (stream.pooled().to(self.dtype)[None] for stream in in_parts(bank))
        return torch.cat([self._placed(x)[0][0] for x in clips])

    @torch.no_grad()
    def _label_spreader(
        self, gram: Tensor, points: Tensor, bank: FeatureBank
    ) -> Callable[[Products], Tensor]:
        """A function from drawn episodes to their logits, that reads weights of pairs and solves for the labels."""
        square = gram.diagonal()
        weights = torch.exp((square[:, None] + square - 2 * gram).clamp(min=0) / (-2 * self.width))

        def logits(products: Products) -> Tensor:
            batch, ways, shots = products.support.shape
            row = torch.cat([products.support.flatten(1), products.query], 1)
            weight = weights.view(-1).take(row[:, :, None] * len(weights) + row[:, None])
            label = gram.new_zeros(batch, row.shape[1], ways)
            label[:, : ways * shots] = torch.eye(
                ways, dtype=gram.dtype, device=gram.device
            ).repeat_interleave(shots, 0)
            return self._closed_form(_normalised(self._nearest(weight)), label)[:, ways * shots :]

        return logits

    def propagate(self, graph: Nodes, support_label: Tensor) -> Propagation:
        """The labels of all nodes, and what leads to them, from those of the supports, one-hot [B, N*K, N]."""
        x, sigma = self._placed(graph.x)
        mean_square = pair_distances(x) / self.width
        weight = self._nearest(torch.exp(-mean_square / 2) * graph.pair_present())
        smooth = _normalised(weight)
        label = torch.zeros(*x.shape[:2], support_label.shape[-1], dtype=x.dtype, device=x.device)
        label[:, : graph.supports] = support_label.to(x.dtype) * graph.present[:, : graph.supports, None]
        return Propagation(sigma, weight, smooth, self._closed_form(smooth, label))

    def _placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded nodes [B, n, D] over their length scales, and the length scales [B, n, 1]."""
        x = self.in_units(x) * self.factor if self.settings.rescale else x
        x = x if self.encoder is None else self.encoder(x)
        sigma = self.relation(x)
        return x / (sigma + EPSILON), sigma

    def _nearest(self, weight: Tensor) -> Tensor:
        """The edges [B, n, n] between nodes of which one is among the other's nearest neighbours; others are zero."""
        k = self.settings.neighbours
        if not 0 < k < weight.shape[-1]:
            return weight
        chosen = torch.zeros_like(weight).scatter(-1, weight.topk(k, -1, sorted=False).indices, 1.0)
        return weight * torch.maximum(chosen, chosen.transpose(1, 2))

    def _closed_form(self, smooth: Tensor, label: Tensor) -> Tensor:
        """(I - alpha S)^-1 Y [B, n, N] of normalised edges S [B, n, n] and labels Y, in single precision at least."""
        dtype = torch.promote_types(smooth.dtype, torch.float32)
        unit = torch.eye(smooth.shape[-1], dtype=dtype, device=smooth.device)
        system = unit - self.alpha.to(dtype) * smooth.to(dtype) + EPSILON
        return torch.linalg.solve(system, label.to(dtype)).to(label.dtype)


def _normalised(weight: Tensor) -> Tensor:
    """D^-1/2 W D^-1/2 of edges W [B, n, n]."""
    scale = (1 / (weight.sum(1) + EPSILON)).sqrt()
    return scale[:, :, None] * weight * scale[:, None, :]


class VectorScale(nn.Module):
    """The length scale [B, n, 1] of vectors [B, n, D]: D -> hidden -> 1, the published net's last two layers."""

    def __init__(self, dim: int, settings: TPNSettings) -> None:
        super().__init__()
        self.first = nn.Linear(dim, settings.hidden)
        self.last = nn.Linear(settings.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))


class MapScale(nn.Module):
    """The length scale [B, n, 1] of feature maps [B, n, C*side*side]: two pooled convolutions, two linear layers."""

    def __init__(self, dim: int, settings: TPNSettings) -> None:
        super().__init__()
        self.side, self.channels = settings.side, dim // settings.side**2
        self.convolution = nn.ModuleList(
            [nn.Conv2d(self.channels, MAP_WIDTH, 3, padding=1), nn.Conv2d(MAP_WIDTH, 1, 3, padding=1)]
        )
        self.norm = nn.ModuleList([nn.BatchNorm2d(MAP_WIDTH), nn.BatchNorm2d(1)])
        pooled = (settings.side // 2 + 1) // 2 + 1
        self.first = nn.Linear(pooled**2, settings.hidden)
        self.last = nn.Linear(settings.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = x.reshape(-1, self.channels, self.side, self.side)
        for convolution, norm in zip(self.convolution, self.norm):
            maps = F.max_pool2d(F.relu(norm(convolution(maps))), 2, padding=1)
        return self.last(F.relu(self.first(maps.flatten(1)))).view(*x.shape[:2], 1)
