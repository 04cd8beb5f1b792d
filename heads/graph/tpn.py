"""TPN: Learning to Propagate Labels (Liu, Lee, Park, Kim, Kim, Hwang and Yang, ICLR 2019).

All supports and queries form one graph whose edges are a Gaussian of their distance, each sample with a length scale of
its own that a small relation net reads off its features. Labels spread over the k nearest neighbours in closed form.
Transductive: queries share labels through one another; no label and no class balance of theirs is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import EpisodeIndex
from ...errors import UsageError
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..settings import Recipe, Settings
from .blocks import GraphHead, Nodes, nearness, node_labels, nodes, pair_distances

EPSILON = 2.220446049250313e-16  # of float64; the released code adds it whatever the precision
MAP_WIDTH = 64


@dataclass(frozen=True)
class TPNSettings(Settings):
    """neighbours: k of the kNN graph, a sample itself counted; 0 for the full graph.

    alpha: how far labels spread, in (0, 1). learn_alpha: train it (the released code's rn = 30) or not (rn = 300).
    embed: width of a learned linear embedding; 0 for none.
    rescale: features in units of the distance of two base clips, times sqrt(D). sigma: where every length scale starts
        for those, times how near neighbours are (``nearness``); 0 for the published random start.
    hidden: width of the relation net on vectors. side: 0 for vectors; else features are maps [D / side^2, side, side]
        and the relation net is the published one with two convolutions.
    support_loss: cross-entropy over the supports as well, as published.
    """

    neighbours: int = 20
    alpha: float = 0.99
    learn_alpha: bool = False
    embed: int = 0
    rescale: bool = True
    sigma: float = 0.4
    hidden: int = 8
    side: int = 0
    support_loss: bool = True


@dataclass
class Propagation:
    """sigma [B, n, 1], weight (after the kNN mask) [B, n, n], smooth (normalised) [B, n, n], label [B, n, N]."""

    sigma: Tensor
    weight: Tensor
    smooth: Tensor
    label: Tensor


class TPN(GraphHead):
    settings_class = TPNSettings
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

    inner_products = True
    light = True

    def __init__(self, inputs: Inputs, settings: TPNSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own: TPNSettings = self.settings
        if not 0 < own.alpha < 1:
            raise UsageError(f"alpha={own.alpha:g} must lie between 0 and 1.")
        _, _, dim = inputs.one()
        if own.side and dim % own.side**2:
            raise UsageError(f"{dim} features are not maps of {own.side} x {own.side}; choose another side.")
        self.factor = dim**0.5 if own.rescale else 1.0
        self.encoder = nn.Linear(dim, own.embed, bias=False) if own.embed else None
        self.width = width = own.embed or dim
        if self.encoder is not None:
            nn.init.orthogonal_(self.encoder.weight)
        self.relation = MapScale(dim, own) if own.side else VectorScale(width, own)
        if own.sigma:
            nn.init.zeros_(self.relation.last.weight)
            nn.init.constant_(self.relation.last.bias, own.sigma)
        self.alpha = nn.Parameter(torch.tensor(own.alpha), requires_grad=own.learn_alpha)

    def fit_base(self, base: FeatureBank) -> None:
        """Measures distances of base clips; length scales start in proportion to how near neighbours are."""
        super().fit_base(base)
        if self.settings.sigma:
            nn.init.constant_(self.relation.last.bias, self.settings.sigma * nearness(base))

    def forward(self, episodes: Episodes) -> Tensor:
        graph, spread = self._spread(episodes)
        known = episodes_known(graph, episodes.ways)
        return neutral(spread.label[:, graph.supports :], graph.present[:, graph.supports :], known)

    def loss(self, episodes: Episodes) -> Losses:
        """Mean cross-entropy of the spread labels, taken as logits, over the supports too (``support_loss``)."""
        graph, spread = self._spread(episodes)
        label = node_labels(episodes).masked_fill(~graph.present, -1)
        if not self.settings.support_loss:
            label[:, : graph.supports] = -1
        value = F.cross_entropy(spread.label.flatten(0, 1), label.flatten(), ignore_index=-1)
        return Losses(value, {"ce": value})

    def _spread(self, episodes: Episodes) -> tuple[Nodes, Propagation]:
        graph = nodes(episodes, self.dtype)
        start = F.one_hot(node_labels(episodes)[:, : graph.supports], episodes.ways)
        return graph, self.propagate(graph, start)

    @torch.no_grad()
    def points(self, bank: FeatureBank) -> Tensor | None:
        """Each clip over its own length scale."""
        x = super().points(bank)
        return None if x is None else self._placed(x.to(self.dtype)[None])[0][0]

    def gram_scorer(self, gram: Tensor, bank: FeatureBank) -> Callable[[EpisodeIndex], Tensor]:
        """The weights of all pairs of clips are found once."""
        own = gram.diagonal()
        weights = torch.exp((own[:, None] + own - 2 * gram).clamp(min=0) / (-2 * self.width))

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            batch, ways, shots = index.support.shape
            row = torch.cat([index.support.flatten(1), index.query], 1).to(gram.device)
            weight = weights.view(-1).take(row[:, :, None] * len(weights) + row[:, None])
            start = torch.eye(ways, dtype=gram.dtype, device=gram.device).repeat_interleave(shots, 0)
            label = gram.new_zeros(batch, row.shape[1], ways)
            label[:, : ways * shots] = start
            return self._closed_form(_smooth(self._nearest(weight)), label)[:, ways * shots :]

        return score

    def propagate(self, graph: Nodes, support_label: Tensor) -> Propagation:
        """Labels of all nodes from those of the supports [B, N*K, N] (one-hot)."""
        x, sigma = self._placed(graph.x)
        mean_square = pair_distances(x) / self.width
        weight = self._nearest(torch.exp(-mean_square / 2) * graph.pair_mask())
        smooth = _smooth(weight)
        label = torch.zeros(*x.shape[:2], support_label.shape[-1], dtype=x.dtype, device=x.device)
        label[:, : graph.supports] = support_label.to(x.dtype) * graph.present[:, : graph.supports, None]
        return Propagation(sigma, weight, smooth, self._closed_form(smooth, label))

    def _placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Embedded nodes [B, n, D] over their length scales, and those [B, n, 1]."""
        x = self.plain(x) * self.factor if self.settings.rescale else x
        x = x if self.encoder is None else self.encoder(x)
        sigma = self.relation(x)
        return x / (sigma + EPSILON), sigma

    def _nearest(self, weight: Tensor) -> Tensor:
        """Edges [B, n, n] of the nearest neighbours of either end; the others become zero."""
        k = self.settings.neighbours
        if not 0 < k < weight.shape[-1]:
            return weight
        near = torch.zeros_like(weight).scatter(-1, weight.topk(k, -1, sorted=False).indices, 1.0)
        return weight * torch.maximum(near, near.transpose(1, 2))

    def _closed_form(self, smooth: Tensor, label: Tensor) -> Tensor:
        """(I - alpha S)^-1 Y. Solved in single precision at least."""
        dtype = torch.promote_types(smooth.dtype, torch.float32)
        unit = torch.eye(smooth.shape[-1], dtype=dtype, device=smooth.device)
        system = unit - self.alpha.to(dtype) * smooth.to(dtype) + EPSILON
        return torch.linalg.solve(system, label.to(dtype)).to(label.dtype)


def _smooth(weight: Tensor) -> Tensor:
    """D^-1/2 W D^-1/2 of edges W [B, n, n]."""
    scale = (1 / (weight.sum(1) + EPSILON)).sqrt()
    return scale[:, :, None] * weight * scale[:, None, :]


class VectorScale(nn.Module):
    """Length scale [B, n, 1] of vectors [B, n, D]: D -> hidden -> 1, the published net's last two layers."""

    def __init__(self, dim: int, settings: TPNSettings) -> None:
        super().__init__()
        self.first = nn.Linear(dim, settings.hidden)
        self.last = nn.Linear(settings.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x)))


class MapScale(nn.Module):
    """Length scale [B, n, 1] of feature maps [B, n, C*side*side]: two pooled convolutions, then two linear layers."""

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


def episodes_known(graph: Nodes, ways: int) -> Tensor:
    """Which classes have a present support [B, N]."""
    return graph.present[:, : graph.supports].unflatten(1, (ways, -1)).any(2)
