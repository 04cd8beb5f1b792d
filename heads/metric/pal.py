"""PAL: Few-shot Action Recognition with Prototype-centered Attentive Learning (Zhu et al., BMVC 2021).

Supports attend to one another, each query attends to the supports, and a query is compared with class means by
cosine. A second loss looks from the prototypes' side: each must draw its own queries and repel the rest. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes, Stream
from ..encoding import EncodingHead
from ..head import Inputs, Losses
from ..parts.absence import zero_where_absent
from ..parts.context import TaskContext
from ..parts.distances import cosine
from ..parts.losses import cross_entropy, targets
from ..parts.task import work_dtype
from ..parts.tensors import class_means
from ..scoring.once_per_clip import OncePerClip
from ..scoring.shortcut import Shortcut
from ..settings import NonNegative, Positive, Recipe, Settings


@dataclass(frozen=True)
class PALSettings(Settings):
    """PAL's settings."""

    scale: Positive = 10.0
    """The factor of the cosine; 1 in the public re-implementation, but a cosine alone is too flat for its losses on
    unit features."""
    epsilon: NonNegative = 0.01
    """What is added to the cosine's denominator."""
    contrast: NonNegative = 1.0
    """The weight of the prototype-centred loss."""
    rescale: bool = True
    """Multiply unit features by sqrt(D) before the attention, whose weights are otherwise all alike."""
    start: bool = True
    """The attention's output begins at zero, so that the untrained head is the cosine prototype rule; false: at
    random."""


class PAL(EncodingHead[PALSettings, Tensor, Tensor]):
    Settings = PALSettings
    recipe = Recipe(steps=600, optimiser="sgd", rate=1e-2, momentum=0.9, mix=0.5)

    def __init__(self, inputs: Inputs, settings: PALSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        self.stretch = dim**0.5 if settings.rescale else 1.0
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        if settings.start:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def encode(self, clips: Stream) -> Tensor:
        """Features [..., D] in the weights' dtype, of length sqrt(D) with ``rescale``."""
        x = clips.pooled().to(work_dtype(clips.x.dtype, self))
        return zero_where_absent(x, clips.present) * self.stretch

    def compare(self, support: Tensor, query: Tensor, context: TaskContext) -> Tensor:
        present = context.support_present.flatten(1, 2)
        given = support.flatten(1, 2)
        s = given + self.attend(given, given, present)
        q = query + self.attend(query, s, present)
        prototype, _ = class_means(s.view_as(support), context.support_present)
        return self.settings.scale * cosine(q, prototype, self.settings.epsilon)

    def attend(self, x: Tensor, memory: Tensor, present: Tensor) -> Tensor:
        """Single-head attention of x [B, I, D] to memory [B, J, D] where present [B, J].

        <Wq x + b, k> = <x, Wq^T k> + <b, k>, and weights and Wo commute: the many x are never projected, the few rows
        of the memory are projected twice instead.
        """
        key = self.key(memory)
        logits = torch.baddbmm((key @ self.query.bias)[:, None], x, (key @ self.query.weight).transpose(1, 2))
        weight = torch.softmax((logits / x.shape[-1] ** 0.5).masked_fill(~present[:, None, :], -1e4), -1)
        return weight @ (self.value(memory) @ self.out.weight.T) + self.out.bias

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy plus ``contrast`` times the prototype-centred term.

        That is minus the mean over classes of log( sum of sigmoid(l) over its queries / (sum over all queries + 0.1) ).
        """
        logits = self(episodes)
        main = cross_entropy(logits, episodes.query_label)
        hot, labelled = targets(episodes, logits.dtype)
        drawn = logits.sigmoid() * labelled[..., None].to(logits.dtype)
        own, everyone = (drawn * hot).sum(1), drawn.sum(1)
        has_query = hot.sum(1) > 0
        each = torch.where(has_query, -(own / (everyone + 0.1)).clamp(min=1e-12).log(), torch.zeros_like(own))
        extra = each.sum() / has_query.sum().clamp(min=1)
        return Losses(main + self.settings.contrast * extra, {"ce": main, "contrast": extra})

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each clip is projected once, and an adapted query is never written out: its products are enough."""
        return (OncePerClip(encode=self.project, encode_query=self.encode, compare=self.compare_projected),)

    def project(self, clips: Stream) -> Projected:
        """What the attention reads of clips, and how a clip changes that takes up their values."""
        x = self.encode(clips)
        key, value = self.key(x), self.out(self.value(x))
        added_key = value @ self.key.weight.T
        return Projected(
            x=x,
            key=key @ self.query.weight,
            shift=key @ self.query.bias,
            value=value,
            added_key=added_key @ self.query.weight,
            added_shift=added_key @ self.query.bias,
            added_value=value @ self.value.weight.T @ self.out.weight.T,
        )

    def compare_projected(self, support: Projected, query: Tensor, context: TaskContext) -> Tensor:
        """Logits [B, Q, N] of projected supports [B, N, K, ...] and queries [B, Q, D], all of which are present.

        The products and the length of a query that has taken up the values follow from its own and from those of the
        few values.
        """
        shape = support.shift.shape
        s = Projected(*(part.flatten(1, 2) for part in support)).attended()
        prototype = s.x.view(*shape, -1).mean(2)
        products = query @ torch.cat([s.key, s.value, prototype], 1).transpose(1, 2)
        by_key, by_value, by_prototype = products.split([s.x.shape[1], s.x.shape[1], shape[1]], -1)
        weight = torch.softmax((by_key + s.shift[:, None]) / query.shape[-1] ** 0.5, -1)
        product = by_prototype + weight @ (s.value @ prototype.transpose(1, 2))
        among = weight @ (s.value @ s.value.transpose(1, 2))
        square = query.norm(dim=-1).square() + (weight * (2 * by_value + among)).sum(-1)
        norms = square.clamp(min=0).sqrt()[..., None] * prototype.norm(dim=-1)[:, None]
        epsilon = self.settings.epsilon
        return self.settings.scale * product / (norms + epsilon if epsilon else norms.clamp(min=1e-12))


class Attendable(NamedTuple):
    """Clips x [..., D] as the attention sees them.

    key: Wq^T of their keys, [..., D]; shift: the product of their keys and Wq's bias, [...]; value: the attention's
    output where it goes to this clip alone, [..., D].
    """

    x: Tensor
    key: Tensor
    shift: Tensor
    value: Tensor


class Projected(NamedTuple):
    """Clips as the attention sees them (see :class:`Attendable`), and what it adds to a clip that attends to them.

    Keys, shifts and values are affine in a clip: where it takes up ``value``, its key gains ``added_key`` [..., D], its
    shift ``added_shift`` [...] and its value ``added_value`` [..., D].
    """

    x: Tensor
    key: Tensor
    shift: Tensor
    value: Tensor
    added_key: Tensor
    added_shift: Tensor
    added_value: Tensor

    def attended(self) -> Attendable:
        """The clips [B, M, ...] after they attended to one another; the weights of each add up to one."""
        logits = (self.x @ self.key.transpose(1, 2) + self.shift[:, None]) / self.x.shape[-1] ** 0.5
        weight = torch.softmax(logits, -1)
        return Attendable(
            self.x + weight @ self.value,
            self.key + weight @ self.added_key,
            self.shift + (weight @ self.added_shift[..., None]).squeeze(-1),
            self.value + weight @ self.added_value,
        )
