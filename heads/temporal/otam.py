"""OTAM: Few-Shot Video Classification via Temporal Alignment (Cao, Ji, Cao, Chang and Niebles, CVPR 2020).

Two clips are as far apart as the cheapest ordered path through the matrix of their frame distances, with free ends; a
soft minimum makes the path differentiable (see ``parts.soft_alignment``). A class's distance is the mean over its
supports. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ...episodes.batch import Episodes, Stream
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.soft_alignment import alignment, backwards
from ..parts.steps import widened
from ..parts.tensors import class_means, single
from ..scoring.pairs import FromPairs, as_classes, as_queries
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, NonNegative, Recipe, Settings


@dataclass(frozen=True)
class OTAMSettings(Settings):
    """OTAM's settings; the directions other than "one" are the forms of the two public re-implementations."""

    gamma: NonNegative = 0.1
    """The softness of the minimum over paths; 0 for the hard minimum."""
    epsilon: NonNegative = 0.0
    """What is added to the denominator |x||z| of the frames' cosine."""
    direction: Literal["one", "both", "reversed"] = "one"
    """What is aligned. One: every query frame is matched along the support (the paper). Both: that and its counterpart
    with the roles exchanged, summed. Reversed: supports are matched along the query, forwards and with both clips
    played backwards, averaged."""
    embed: CountOrNone = 0
    """The width of a learned linear embedding of the frames; 0 for none, which needs no training."""

    @property
    def adds_weights(self) -> bool:
        return self.embed > 0


class OTAM(Head[OTAMSettings]):
    Settings = OTAMSettings
    recipe = Recipe(steps=400, query=5, optimiser="sgd", weight_decay=5e-4)

    def __init__(self, inputs: Inputs, settings: OTAMSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        self.encoder = nn.Linear(dim, settings.embed) if settings.embed else None

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        costs = self.combined(self.path_costs(support, query))
        return self._logits(costs, support, query).to(query.x.dtype)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy; in the reversed form the mean over the two playing directions."""
        support, query = single(episodes)
        costs = self.path_costs(support, query)
        scored = costs if self.settings.direction == "reversed" else [self.combined(costs)]
        terms = [cross_entropy(self._logits(c, support, query), episodes.query_label) for c in scored]
        value = torch.stack(terms).mean()
        return Losses(value, {"ce": value})

    def path_costs(self, support: Stream, query: Stream) -> list[Tensor]:
        """The costs [B, Q, N*K] of the one or two alignments that make up the distance of two clips."""
        matrix = self.frame_distances(support, query)
        return self._aligned(matrix, *_lengths(support, query))

    def frame_distances(self, support: Stream, query: Stream) -> Tensor:
        """One minus the cosine of every frame pair, [Tq, Ts, B, Q, N*K]."""
        s, q = widened(support).x.flatten(1, 2), widened(query).x
        if self.encoder is not None:
            s, q = (self.encoder(x.to(self.encoder.weight.dtype)).to(x.dtype) for x in (s, q))
        # Steps go before clips, so that the pair axes come out innermost and are copied in long runs.
        product = cosine(
            q.transpose(1, 2).flatten(1, 2), s.transpose(1, 2).flatten(1, 2), self.settings.epsilon
        )
        shaped = product.unflatten(1, (q.shape[2], q.shape[1])).unflatten(-1, (s.shape[2], s.shape[1]))
        by_step = shaped.permute(1, 3, 0, 2, 4).contiguous()
        return 1 - by_step if by_step.requires_grad else by_step.neg_().add_(1)

    def _aligned(self, matrix: Tensor, rows: Tensor | None, columns: Tensor | None) -> list[Tensor]:
        """Path costs from frame distances [Tq, Ts, B, Q, N*K] and the numbers of steps that count."""
        gamma, direction = self.settings.gamma, self.settings.direction
        if direction == "one":
            return [alignment(matrix, gamma, rows, columns)]
        turned = matrix.transpose(0, 1)
        along_query = alignment(turned, gamma, columns, rows)
        if direction == "both":
            return [alignment(matrix, gamma, rows, columns), along_query]
        return [along_query, alignment(backwards(turned, columns, rows), gamma, columns, rows)]

    def combined(self, costs: list[Tensor]) -> Tensor:
        """The clips' distances [B, Q, N*K] from the costs of their alignments."""
        each = torch.stack(costs)
        return each.mean(0) if self.settings.direction == "reversed" else each.sum(0)

    def _logits(self, distance: Tensor, support: Stream, query: Stream) -> Tensor:
        """Minus the mean distance [B, Q, N] to the present supports; distance [B, Q, N*K]."""
        by_class = distance.unflatten(-1, support.present.shape[1:]).permute(0, 2, 3, 1)  # [B, N, K, Q]
        mean, class_present = class_means(by_class, support.present)
        return neutral(-mean.transpose(1, 2), query.present, class_present)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Each pair of clips is scored once, in both roles; a class's distance is the mean over its supports."""
        return (FromPairs(head=self, pool=lambda pairs: pairs.mean(-1), both_roles=self.both_roles),)

    def both_roles(self, rows: Stream, columns: Stream) -> tuple[Tensor, Tensor]:
        """Logits [r, c] of clips [r, T, D] as queries against [c, T, D] as supports, and [c, r] with roles exchanged.

        The distances of two clips' frames serve both roles.
        """
        support, query = as_classes(columns), as_queries(rows)
        matrix = self.frame_distances(support, query)
        row_steps, column_steps = _lengths(support, query)
        forth = self.combined(self._aligned(matrix, row_steps, column_steps))
        back = self.combined(self._aligned(matrix.transpose(0, 1), column_steps, row_steps))
        dtype = rows.x.dtype
        return -forth[0].to(dtype), -back[0].T.to(dtype)


def _lengths(support: Stream, query: Stream) -> tuple[Tensor | None, Tensor | None]:
    """Steps that count, of queries [B, Q, 1] and supports [B, 1, N*K]; None where every clip is whole."""
    rows, columns = query.length[..., None].clamp(min=1), support.length.flatten(1)[:, None].clamp(min=1)
    if bool((rows == query.x.shape[-2]).all()) and bool((columns == support.x.shape[-2]).all()):
        return None, None
    return rows, columns
