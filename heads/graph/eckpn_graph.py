"""ECKPN's instance graph: who resembles whom among the supports and queries of a task (comparison module).

Nodes are the supports, class by class, then the queries: R = N*K + Q of them. All relations are symmetric, so the
stacks see each pair once. In shapes B is the number of tasks, D the width of nodes, C that of what is compared, and H
the number of groups of channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import pair_distances
from .eckpn_settings import ECKPNSettings, Rule

LOG_NO_EDGE = (
    -1e30
)  # This stands for the logarithm of zero; it is finite, so that rows without any edge give no NaN.


def first_adjacency(support_class: Tensor, present: Tensor, dtype: torch.dtype) -> Tensor:
    """The initial adjacency A_0 [B, R, R]: among supports 1 for one class and 0 for two; for pairs with a query 1/R.

    The diagonal is 1, absent nodes have no edge, and R counts the nodes that are present. support_class: int64 [N*K];
    present: bool [B, R].
    """
    supports = len(support_class)
    mask = present.to(dtype)
    count = mask.sum(1).clamp(min=1)[:, None, None]
    adjacency = (1 / count).expand(-1, present.shape[1], present.shape[1]).clone()
    same = (support_class[:, None] == support_class[None, :]).to(adjacency.dtype)
    adjacency[:, :supports, :supports] = same
    adjacency.diagonal(dim1=1, dim2=2).fill_(1.0)
    return adjacency * mask[:, :, None] * mask[:, None, :]


def episode_unit(x: Tensor, present: Tensor) -> Tensor:
    """One over the root of the mean squared distance between two present nodes of a task, [B, 1, 1]; x [B, R, D].

    Features in these units let one start serve raw and normalised features, one modality and several.
    """
    mask = present.to(x.dtype)[..., None]
    count = mask.sum(1).clamp(min=2)
    mean = (x * mask).sum(1) / count
    spread = ((x - mean[:, None]).square() * mask).sum((1, 2)) / (count[:, 0] - 1)
    return (2 * spread).clamp(min=1e-12).rsqrt()[:, None, None]


def renormalised(score: Tensor, previous: Tensor | None, present: Tensor) -> Tensor:
    """The adjacency [B, H, R, R] of edge scores f [B, H, R, R] (the edge is sigmoid(f)).

    Edges are multiplied by the previous adjacency [B, R, R] (the relation mask; None for no mask), lose their
    diagonal, are scaled so that each row keeps the previous row's mass (without a mask: one) and gain the identity;
    then rows are scaled to one.
    """
    others = ~torch.eye(score.shape[-1], dtype=torch.bool, device=score.device)
    mask = (others & present[:, None, :] & present[:, :, None]).to(score.dtype)[:, None]
    if previous is not None:
        mask = mask * previous[:, None]
    log_edge = F.logsigmoid(score).masked_fill(mask == 0, LOG_NO_EDGE)
    # Edges only matter relative to their row: subtracting its maximum keeps far pairs from vanishing altogether.
    edge = (log_edge - log_edge.amax(-1, keepdim=True).detach()).exp() * mask
    edge = edge / edge.sum(-1, keepdim=True).clamp(min=1e-12)
    if previous is not None:
        edge = edge * mask.sum(-1, keepdim=True)
    edge = edge + torch.eye(score.shape[-1], dtype=score.dtype, device=score.device)
    return edge / edge.sum(-1, keepdim=True)


class ChannelNorm(nn.Module):
    """Batch or layer normalisation of x [..., groups, channels], each group by itself.

    kind: "batch" is the published choice, with batch statistics in training and running ones in evaluation; "layer"
    needs no statistics of other pairs.
    """

    def __init__(self, kind: str, groups: int, channels: int) -> None:
        super().__init__()
        self.batch: nn.Module = nn.BatchNorm1d(groups * channels) if kind == "batch" else nn.Identity()
        self.weight = nn.Parameter(torch.ones(groups, channels)) if kind == "layer" else None
        self.bias = nn.Parameter(torch.zeros(groups, channels)) if kind == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None or self.bias is None:
            return self.batch(x.flatten(-2).flatten(0, -2)).view_as(x)
        if len(self.weight) == 1:
            return F.layer_norm(x, x.shape[-1:], self.weight[0], self.bias[0])
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class GroupedLinear(nn.Module):
    """A linear map for each of ``groups`` groups of channels: [..., G, inward] -> [..., G, outward].

    zero_init: the weights start at zero, as the bias always does.
    """

    def __init__(self, groups: int, inward: int, outward: int, *, zero_init: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero_init else inward**-0.5
        self.weight = nn.Parameter(torch.empty(groups, inward, outward).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(groups, outward))

    def forward(self, x: Tensor) -> Tensor:
        # The blocks are so small that one product with a block-diagonal matrix beats a batch of products.
        whole = torch.block_diag(*self.weight.transpose(1, 2))
        return F.linear(x.flatten(-2), whole, self.bias.flatten()).unflatten(-1, self.bias.shape)


class Relation(nn.Module):
    """The edge scores f((u_i - u_j)^2) of G groups of c channels, by a stack c -> 2c -> c -> 1 with normalisation.

    zero_init: the last layer starts at zero, so that all scores do.
    """

    def __init__(self, groups: int, channels: int, norm: str, *, zero_init: bool) -> None:
        super().__init__()
        self.groups = groups
        self.stack = nn.Sequential(
            GroupedLinear(groups, channels, 2 * channels),
            ChannelNorm(norm, groups, 2 * channels),
            nn.LeakyReLU(inplace=True),
            GroupedLinear(groups, 2 * channels, channels),
            ChannelNorm(norm, groups, channels),
            nn.LeakyReLU(inplace=True),
            GroupedLinear(groups, channels, 1, zero_init=zero_init),
        )

    def forward(self, u: Tensor) -> Tensor:
        """The scores [B, G, R, R] of u [B, R, G*c]; the diagonal is the score of a zero difference."""
        nodes = u.shape[1]
        first, second = torch.triu_indices(nodes, nodes, device=u.device)
        squared = (u[:, first] - u[:, second]).square().unflatten(-1, (self.groups, -1))
        value = self.stack(squared).squeeze(-1).transpose(1, 2)
        index = torch.empty(nodes, nodes, dtype=torch.long, device=u.device)
        pair = torch.arange(len(first), device=u.device)
        index[first, second] = pair
        index[second, first] = pair
        return value[:, :, index]


class Comparison(nn.Module):
    """One layer of the comparison module: relations of all channels and of each group, messages, update.

    nodes: the width D of nodes. With ``settings.residual`` scores start at threshold - sharpness * |u_i - u_j|^2 and
    nodes at the mean of themselves and their neighbours (of share ``blend``), as ``rule`` says, and the stacks that are
    added start at zero; else there are the published plain stacks alone.
    """

    def __init__(self, nodes: int, settings: ECKPNSettings, rule: Rule) -> None:
        super().__init__()
        self.heads, self.width, self.residual = settings.heads, settings.width, settings.residual
        self.masks, self.blend = settings.masks, rule.blend
        self.whole = Relation(1, self.width, settings.norm, zero_init=self.residual)
        self.parts = self._relation_of_groups(settings) if self.heads else None
        relations = 1 + self.heads
        self.sharpness = nn.Parameter(torch.zeros(relations)) if self.residual else None
        self.threshold = nn.Parameter(torch.zeros(relations)) if self.residual else None
        self.start_from(rule)
        self.update = Update(
            inward=2 * nodes + (self.width if self.heads else 0),
            hidden=self.width if self.residual else 2 * nodes,
            outward=nodes,
            norm=settings.norm,
            zero_init=self.residual,
        )

    @torch.no_grad()
    def start_from(self, rule: Rule) -> None:
        """Set where the similarity starts."""
        if self.sharpness is not None and self.threshold is not None:
            self.sharpness.fill_(math.log(rule.sharpness))
            # Half an edge at a third of the mean squared distance: higher, and near pairs would all look alike.
            self.threshold.fill_(rule.sharpness / 3)

    def _relation_of_groups(self, settings: ECKPNSettings) -> Relation:
        return Relation(self.heads, self.width // self.heads, settings.norm, zero_init=self.residual)

    def forward(
        self, v: Tensor, u: Tensor, adjacency: Tensor, present: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """New nodes [B, R, D], the adjacency [B, R, R] of all channels and its scores f [B, R, R].

        v: nodes [B, R, D]; u: their compared channels [B, R, C]; adjacency: the previous one [B, R, R]; present: bool
        [B, R].
        """
        score = self.scores(v, u)
        edges = renormalised(score, adjacency if self.masks else None, present)
        around = edges[:, 0] @ v
        messages = [v, around]
        if self.heads:
            groups = u.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            messages.append((edges[:, 1:] @ groups).transpose(1, 2).flatten(2))
        change = self.update(torch.cat(messages, -1))
        new = v + self.blend * (around - v) + change if self.residual else change
        return new * present[..., None].to(v.dtype), edges[:, 0], score[:, 0]

    def scores(self, v: Tensor, u: Tensor) -> Tensor:
        """The edge scores f [B, 1 + H, R, R] of all channels, then of each group."""
        seen = u * self.width**0.5  # Differences are then about one a channel.
        score = [self.whole(seen)] + ([self.parts(seen)] if self.parts is not None else [])
        if self.sharpness is None or self.threshold is None:
            return torch.cat(score, 1)
        distance = [pair_distances(v)[:, None]]
        if self.heads:
            groups = u.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            distance.append(pair_distances(groups) * self.heads)
        sharpness, threshold = self.sharpness.exp()[:, None, None], self.threshold[:, None, None]
        return threshold - sharpness * torch.cat(distance, 1) + torch.cat(score, 1)


class Update(nn.Module):
    """Two layers inward -> hidden -> outward with normalisation between.

    zero_init: the last layer starts at zero, and its output is divided by sqrt(outward): nodes have a length of about
    one, so that the first Adam steps would otherwise drown them. Without it normalisation and a leaky ReLU follow, as
    published.
    """

    def __init__(self, *, inward: int, hidden: int, outward: int, norm: str, zero_init: bool) -> None:
        super().__init__()
        self.first = GroupedLinear(1, inward, hidden)
        self.between = ChannelNorm(norm, 1, hidden)
        self.second = GroupedLinear(1, hidden, outward, zero_init=zero_init)
        self.after = None if zero_init else ChannelNorm(norm, 1, outward)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.between(self.first(x[..., None, :])))
        out = self.second(hidden)
        out = out * out.shape[-1] ** -0.5 if self.after is None else F.leaky_relu(self.after(out))
        return out.squeeze(-2)
