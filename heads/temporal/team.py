"""TEAM: Temporal Alignment-Free Video Matching for Few-shot Action Recognition (Lee, Moon, Seong and Heo, CVPR 2025).

A fixed set of learned pattern tokens attends to the steps of a clip, so that clips of any length become the same number
of tokens, of what is there (positive) and of what is not (negative); clips are compared token by token. In each episode
what a class shares with the other classes is taken out of its tokens. Inductive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import neutral
from ..parts.context import TaskContext
from ..parts.losses import cross_entropy
from ..parts.positions import sinusoid
from ..parts.steps import unit_gain
from ..parts.tensors import single
from ..settings import Count, NonNegative, Positive, Rate, Recipe, Settings


@dataclass(frozen=True)
class TEAMSettings(Settings):
    """TEAM's settings."""

    tokens: Count = 20
    """The number of pattern tokens (published: 50 to 80; fewer here, as cached features have few base classes)."""
    position: NonNegative = 0.1
    """The weight of the position code that is added to every step."""
    dropout: Rate = 0.1
    """The dropout of the steps with their codes and of the attention."""
    discriminate: Literal["similarity", "always", "no"] = "similarity"
    """What a class shares with others is taken out of its tokens: by how similar they are (the paper), wholly, or not
    at all."""
    decide: Literal["both", "positive", "negative"] = "both"
    """The distances that decide. Positive: those of positive tokens, which alone are trained then; negative: those to
    the other classes, while both are trained."""
    rescale: bool = True
    """Multiply unit features by sqrt(D), the scale that the position code was chosen for."""
    scale: Positive = 1.0
    """The factor of the distances, which add up over the tokens."""
    start: bool = True
    """The network behind the tokens begins as the identity, and so does the say of the patterns (0.1 instead of unit
    noise); false: at random, as published."""


class Steps(NamedTuple):
    """A clip's steps with their position codes, x [..., T, D]; which of them count, valid bool [..., T]."""

    x: Tensor
    valid: Tensor


class Read(NamedTuple):
    """What pattern tokens find in clips, x [..., n, D], and what that adds to the hidden layer, hidden [..., n, D]."""

    x: Tensor
    hidden: Tensor


class Tokens(NamedTuple):
    """Positive and negative tokens [..., n, D] of a clip or class."""

    positive: Tensor
    negative: Tensor


class TEAM(EncodingHead[TEAMSettings, Steps, Tokens]):
    Settings = TEAMSettings
    recipe = Recipe(
        steps=200,
        tasks=4,
        query=5,
        rate=1e-3,
        optimiser="sgd",
        weight_decay=5e-4,
        evaluate_episodes=200,
        patience=4,
    )

    def __init__(self, inputs: Inputs, settings: TEAMSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.pattern = nn.Parameter(torch.randn(settings.tokens, dim) * (0.1 if settings.start else 1.0))
        self.norm = nn.LayerNorm(dim)
        self.first, self.second = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.position_dropout, self.attention_dropout = (nn.Dropout(settings.dropout) for _ in range(2))
        if settings.start:
            nn.init.zeros_(self.second.weight)
            nn.init.zeros_(self.second.bias)

    def encode(self, clips: Stream) -> Steps:
        """Steps with their position codes of clips [..., T, D]."""
        x = clips.x.to(self.pattern.dtype) * self.gain
        placed = x + self.settings.position * sinusoid(x.shape[-2], x)
        return Steps(self.position_dropout(placed), clips.mask())

    def encode_query(self, clips: Stream) -> Tokens:
        """The tokens of clips [..., T, D]."""
        return self.tokens(self.read(self.encode(clips)))

    def tokens(self, read: Read) -> Tokens:
        """Positive and negative tokens of what the pattern tokens read, [..., n, D]."""
        return Tokens(self.refined(1.0, read), self.refined(-1.0, read))

    def read(self, steps: Steps) -> Read:
        """What the pattern tokens find in clips [...]: one head of attention to normalised steps.

        The first layer is linear, so that its share of a token is a mean of its shares of steps; these are fewer.
        """
        x, asked = self.norm(steps.x), self.norm(self.pattern)
        logits = asked @ x.transpose(-1, -2) / (x.shape[-1] / 8) ** 0.5
        allowed = steps.valid | ~steps.valid.any(-1, keepdim=True)
        weight = logits.masked_fill(~allowed[..., None, :], torch.finfo(logits.dtype).min).softmax(-1)
        weight = self.attention_dropout(weight)
        found, layer = weight @ x, self.first.weight
        fewer_steps = x.shape[-2] < self.settings.tokens
        return Read(found, weight @ F.linear(x, layer) if fewer_steps else F.linear(found, layer))

    def refined(self, sign: float, read: Read) -> Tensor:
        """ReLU(z + MLP(z)) of tokens z [..., n, D], the pattern plus or minus what was read."""
        tokens = self.pattern + sign * read.x
        hidden = self.first(self.pattern) + sign * read.hidden
        return (tokens + self.second(hidden.relu())).relu()

    def compare(self, support: Steps, query: Tokens, context: TaskContext) -> Tensor:
        positive, negative = self.distances(support, query, context)
        terms = {"both": positive + negative, "positive": positive, "negative": negative}
        return -self.settings.scale * terms[self.settings.decide]

    def distances(self, support: Steps, query: Tokens, context: TaskContext) -> tuple[Tensor, Tensor]:
        """How far queries are from each class, and from the tokens of what the other classes lack, both [B, Q, N]."""
        read = self.read(class_steps(support))  # of classes [B, N]
        tokens = self.tokens(read)
        if self.settings.discriminate != "no":
            tokens = self.discriminative(read, tokens, context.class_present)
        positive = token_distance(tokens.positive, query.positive)
        crossed = [
            token_distance(tokens.positive, query.negative),
            token_distance(tokens.negative, query.positive),
        ]
        each = [greatest_of_others(distance, context.class_present) for distance in crossed]
        return positive, (each[0] + each[1]) / 2

    def discriminative(self, read: Read, tokens: Tokens, class_present: Tensor) -> Tokens:
        """Tokens [B, N, n, D] without what a class shares with others, the means over the other classes."""
        found = []
        for sign, own in ((1.0, tokens.positive), (-1.0, tokens.negative)):
            shared = F.cosine_similarity(own[:, :, None], own[:, None], dim=-1)[..., None]
            shared = torch.ones_like(shared) if self.settings.discriminate == "always" else shared
            pair = self.refined(sign, Read(*(without(each, shared) for each in read)))
            found.append(mean_of_others(pair, own, class_present))
        return Tokens(*found)

    def loss(self, episodes: Episodes) -> Losses:
        """The cross-entropies of both distances; of the positive one alone where it decides alone."""
        support, query = single(episodes)
        context = TaskContext(support.present, query.present, None)
        both = self.distances(self.encode(support), self.encode_query(query), context)
        kept = both[:1] if self.settings.decide == "positive" else both
        logits = [neutral(-self.settings.scale * d, query.present, context.class_present) for d in kept]
        each = [cross_entropy(one, episodes.query_label) for one in logits]
        return Losses(torch.stack(each).sum(), dict(zip(("positive", "negative"), each)))


def without(read: Tensor, shared: Tensor) -> Tensor:
    """R_c - s (R_d - R_c), [B, c, d, n, D], of what classes read, R [B, N, n, D], and shares s [B, c, d, n, 1]."""
    return read[:, :, None] - shared * (read[:, None] - read[:, :, None])


def class_steps(support: Steps) -> Steps:
    """The steps of classes [B, N]: means, step by step, over the supports [B, N, K] that have the step."""
    weight = support.valid[..., None].to(support.x.dtype)
    mean = (support.x * weight).sum(2) / weight.sum(2).clamp(min=1)
    return Steps(mean, support.valid.any(2))


def token_distance(classes: Tensor, query: Tensor) -> Tensor:
    """The sums [B, Q, N] over tokens of one minus the cosine; classes [B, N, n, D], query [B, Q, n, D]."""
    c, q = (F.normalize(x, dim=-1, eps=1e-8) for x in (classes, query))
    return c.shape[-2] - q.flatten(-2) @ c.flatten(-2).transpose(1, 2)


def greatest_of_others(distance: Tensor, class_present: Tensor) -> Tensor:
    """For each class the greatest distance [B, Q, N] to another present class; 0 where there is none."""
    pair = other_classes(class_present)[:, None]  # [B, 1, N, N]
    lowest = torch.finfo(distance.dtype).min
    greatest = distance[:, :, None].masked_fill(~pair, lowest).amax(-1)
    return torch.where(pair.any(-1), greatest, 0.0)


def mean_of_others(pair: Tensor, own: Tensor, class_present: Tensor) -> Tensor:
    """The means [B, N, ...] over the other present classes of pair [B, N, N, ...]; ``own`` where there is none."""
    weight = other_classes(class_present).to(pair.dtype)
    count = weight.sum(-1)[..., None, None]
    mean = torch.einsum("bcdnx,bcd->bcnx", pair, weight) / count.clamp(min=1)
    return torch.where(count > 0, mean, own)


def other_classes(class_present: Tensor) -> Tensor:
    """Which classes are another one and present, bool [B, N, N], of class_present [B, N]."""
    ways = class_present.shape[1]
    return ~torch.eye(ways, dtype=torch.bool, device=class_present.device) & class_present[:, None]
