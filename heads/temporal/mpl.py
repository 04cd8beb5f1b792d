"""MPL: Match-guided Prototype Learning for Few-shot Action Recognition (CVPR 2026).

Each support takes in the queries that match it best, the shots of a class attend to one another step by step, and the
steps of a class are related by attention; key frames found by matching become one more step of classes and queries,
which are then compared as sets of steps. Transductive: supports and keys hold features of all queries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.steps import resample, unit_gain
from ..parts.tensors import single
from ..parts.token_block import TokenBlock
from ..settings import Count, CountOrNone, Positive, Rate, Recipe, Settings


@dataclass(frozen=True)
class MPLSettings(Settings):
    """MPL's settings."""

    nearest: CountOrNone = 1
    """How many of its best-matching queries a support takes in (released: 1 or 2); 0 for none."""
    window: Count = 9
    """How many steps apart two steps may be that are each other's key; as many as a clip has: no restriction."""
    keys: Literal["partner", "released"] = "partner"
    """A key is a mean of the steps of the other side that were matched. Partner: they are taken from the matched clip;
    released: the matched positions are read in the clip that was matched."""
    heads: Count = 8
    """The attention heads (as many as divide the width)."""
    width: CountOrNone = 128
    """The width of the steps' attention; 0 for that of the features, as published. It is smaller here, as cached
    features have few base classes."""
    hidden: Count = 256
    """The width of the hidden layer behind the steps' attention (published: 2048)."""
    dropout: Rate = 0.1
    """The dropout of both attentions."""
    rescale: bool = True
    """Multiply unit features by sqrt(D), the scale of layers with norms."""
    scale: Positive = 1.0
    """The factor of the logits, which add up over the steps."""
    start: bool = True
    """The attentions begin as the identity, so that the untrained head is the two matches alone; false: at random."""


class Matched(NamedTuple):
    """Key-frame match of queries and classes: the constrained distance [B, Q, N]; of each class step its nearest query
    step, to_query [B, Q, N, T], and of each query step its nearest class step, to_class [B, Q, N, T]."""

    distance: Tensor
    to_query: Tensor
    to_class: Tensor


class Clips(NamedTuple):
    """Steps of supports [B, N, K, T, D] and queries [B, Q, T, D], and which clips are present."""

    support: Tensor
    query: Tensor
    support_present: Tensor
    query_present: Tensor


class MPL(Head[MPLSettings]):
    Settings = MPLSettings
    recipe = Recipe(
        steps=100, tasks=4, query=5, rate=1e-4, weight_decay=5e-4, evaluate_every=25, evaluate_episodes=60
    )

    def __init__(self, inputs: Inputs, settings: MPLSettings) -> None:
        super().__init__(inputs, settings)
        _, self.steps, dim = inputs.one()
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.shots = ShotAttention(dim, settings.heads, dropout=settings.dropout, start=settings.start)
        self.context = TokenBlock(
            dim,
            settings.heads,
            settings.width,
            settings.hidden,
            dropout=settings.dropout,
            start=settings.start,
        )

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        clips = self.clips(episodes)
        prototypes = self.prototypes(self.enhanced(clips), clips.support_present)
        related = self.related(prototypes)
        class_present = clips.support_present.any(2)
        key = self.keys(related, clips, self.key_match(prototypes, clips.query))
        classes = torch.cat([key[1][:, :, None], related], 2)
        queries = torch.cat([key[0][:, :, None], clips.query], 2)
        distance = set_distance(step_distances(classes, queries))
        return neutral(-self.settings.scale * distance, clips.query_present, class_present)

    def clips(self, episodes: Episodes) -> Clips:
        """The clips of episodes with as many steps as the head was built for, in the dtype of its weights."""
        support, query = single(episodes)
        dtype = self.context.out.weight.dtype
        s, q = (
            resample(clips, self.steps).x.to(dtype) * self.gain * clips.present[..., None, None].to(dtype)
            for clips in (support, query)
        )
        return Clips(s, q, support.present, query.present)

    def enhanced(self, clips: Clips) -> Tensor:
        """Supports [B, N, K, T, D] with their best-matching queries added, weighted by how well these match.

        The weight of the j-th nearest is the match distance of the j-th farthest minus its own, of length one over j.
        """
        count = min(self.settings.nearest, clips.query.shape[1])
        if not count:
            return clips.support
        match = self.match_distances(clips).transpose(1, 2)  # [B, N*K, Q]
        absent = ~clips.query_present[:, None].expand_as(match)
        near, place = match.masked_fill(absent, torch.inf).topk(count, largest=False)
        far = match.masked_fill(absent, -torch.inf).topk(count).values
        weight = torch.where(near.isfinite() & far.isfinite(), far - near, 0.0)
        weight = weight / weight.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        chosen = torch.zeros_like(match).scatter(-1, place, weight)  # [B, N*K, Q]
        added = (chosen.to(clips.query.dtype) @ clips.query.flatten(2)).view_as(clips.support)
        return clips.support + added * clips.support_present[..., None, None].to(added.dtype)

    def match_distances(self, clips: Clips) -> Tensor:
        """The set distances [B, Q, N*K] of all pairs of queries and supports."""
        return set_distance(step_distances(clips.support.flatten(1, 2), clips.query))

    def prototypes(self, support: Tensor, present: Tensor) -> Tensor:
        """The steps [B, N, T, D] of classes: the mean over present shots, plus that of the shots after attention."""
        return shot_mean(support, present) + shot_mean(self.shots(support, present), present)

    def related(self, steps: Tensor) -> Tensor:
        """Sequences [..., L, D] after the steps' attention."""
        return self.context(steps, torch.ones_like(steps[..., 0], dtype=torch.bool))

    def keys(self, classes: Tensor, clips: Clips, match: Matched) -> tuple[Tensor, Tensor]:
        """The key steps of queries [B, Q, D] and of classes [B, N, D], each with the mean of its own steps."""
        present = clips.query_present, clips.support_present.any(2)
        both = torch.cat(self.matched_keys(classes, clips, match), 1)
        valid = torch.cat(present, 1)
        key = self.context(both * valid[..., None].to(both.dtype), valid)
        of_query, of_class = key.split([clips.query.shape[1], classes.shape[1]], 1)
        return of_query + clips.query.mean(2), of_class + classes.mean(2)

    def matched_keys(self, classes: Tensor, clips: Clips, match: Matched) -> tuple[Tensor, Tensor]:
        """Mean matched steps of queries [B, Q, D] over classes, and of classes [B, N, D] over queries.

        classes: the related steps [B, N, T, D]; match: that of the classes before they were related.
        """
        pair = (clips.query_present[..., None] & clips.support_present.any(2)[:, None]).to(classes.dtype)
        of_class, of_query = (
            F.one_hot(place, self.steps).to(classes.dtype).mean(-2) * pair[..., None]
            for place in (match.to_query, match.to_class)
        )  # how often each step was matched, [B, Q, N, T]
        per_query, per_class = (pair.sum(axis).clamp(min=1)[..., None] for axis in (2, 1))
        if self.settings.keys == "released":
            query = torch.einsum("bqnt,bqtd->bqd", of_query, clips.query) / per_query
            return query, torch.einsum("bqnt,bntd->bnd", of_class, classes) / per_class
        query = torch.einsum("bqnt,bntd->bqd", of_query, classes) / per_query
        return query, torch.einsum("bqnt,bqtd->bnd", of_class, clips.query) / per_class

    def key_match(self, classes: Tensor, query: Tensor) -> Matched:
        """The match of class steps [B, N, T, D] and query steps [B, Q, T, D] that are at most ``window`` apart."""
        distance = step_distances(classes, query)  # [B, Q, N, T, T], class steps by query steps
        step = torch.arange(distance.shape[-1], device=distance.device)
        apart = (step[:, None] - step).abs() > self.settings.window
        distance = distance.masked_fill(apart, torch.finfo(distance.dtype).max)
        forth, back = distance.min(-1), distance.min(-2)
        return Matched(forth.values.sum(-1) + back.values.sum(-1), forth.indices, back.indices)


class ShotAttention(nn.Module):
    """LN(x + attention(x)) over the shots of a class, each step by itself.

    With ``start`` the output begins as nothing, and what is left is the layer norm of the supports.
    """

    def __init__(self, dim: int, heads: int, *, dropout: float, start: bool) -> None:
        super().__init__()
        self.heads = next(h for h in range(min(heads, dim), 0, -1) if dim % h == 0)
        self.query, self.key, self.value = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.out, self.norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        if start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """Related supports [B, N, K, T, D] of supports x, of which present, bool [B, N, K], are attended to."""
        shots = x.transpose(2, 3)  # [B, N, T, K, D]
        layers = (self.query, self.key, self.value)
        q, k, v = (f(shots).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for f in layers)
        allowed = (present | ~present.any(-1, keepdim=True))[:, :, None, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, allowed).transpose(-2, -3).flatten(-2)
        return self.norm(shots + self.dropout(self.out(attended))).transpose(2, 3)


def shot_mean(x: Tensor, present: Tensor) -> Tensor:
    """The means [B, N, T, D] of x [B, N, K, T, D] over the present shots, bool [B, N, K]."""
    weight = present[..., None, None].to(x.dtype)
    return (x * weight).sum(2) / weight.sum(2).clamp(min=1)


def step_distances(first: Tensor, query: Tensor) -> Tensor:
    """One minus the cosine of all pairs of steps [B, Q, S, T, T'] of clips [B, S, T, D] and queries [B, Q, T', D]."""
    s, q = (F.normalize(x.float() if x.dtype == torch.bfloat16 else x, dim=-1) for x in (first, query))
    product = q.flatten(1, 2) @ s.flatten(1, 2).transpose(1, 2)
    return 1 - product.unflatten(1, q.shape[1:3]).unflatten(-1, s.shape[1:3]).permute(0, 1, 3, 4, 2)


def set_distance(distance: Tensor) -> Tensor:
    """The sums [...] of both sides' distances to their nearest step, of distance [..., I, J]."""
    return distance.amin(-1).sum(-1) + distance.amin(-2).sum(-1)
