"""OTAM: Few-Shot Video Classification via Temporal Alignment (Cao, Ji, Cao, Chang and Niebles, CVPR 2020).

Two clips are as far apart as the cheapest ordered path through the matrix of their frame distances, with free ends; a
soft minimum makes the path differentiable. A class's distance is the mean over its supports. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes, Stream
from ...errors import UsageError
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine
from ..parts.losses import cross_entropy
from ..parts.soft_alignment import alignment, backwards
from ..parts.steps import widened
from ..parts.tensors import single
from ..scoring.pairs import as_classes, as_queries
from ..settings import Recipe, Settings

DIRECTIONS = ("one", "both", "reversed")


@dataclass(frozen=True)
class OTAMSettings(Settings):
    """gamma: of the soft minimum; 0 for the hard one. epsilon: added to |x||z| in the frames' cosine.

    direction: "one", every query frame is matched along the support (the paper); "both", that and its counterpart with
        the roles exchanged, summed; "reversed", supports matched along the query, forwards and with both clips played
        backwards, averaged. The latter two are the forms of the two public re-implementations.
    embed: width of a learned linear embedding of the frames; 0 for none (training-free).
    """

    gamma: float = 0.1
    epsilon: float = 0.0
    direction: str = "one"
    embed: int = 0


class OTAM(Head):
    settings_class = OTAMSettings
    recipe = Recipe(steps=400, query=5, optimiser="sgd", rate=1e-3, momentum=0.9, weight_decay=5e-4)
    sequences = True
    pairwise = True
    pools_shots = True
    light = True

    def __init__(self, inputs: Inputs, settings: OTAMSettings | None = None) -> None:
        super().__init__(inputs, settings)
        own = self.settings
        if own.direction not in DIRECTIONS:
            raise UsageError(f"direction={own.direction!r} is not known; use {', '.join(DIRECTIONS)}.")
        if own.gamma < 0:
            raise UsageError(
                f"gamma={own.gamma} is negative; use 0 for the hard minimum or a positive number."
            )
        _, self.steps, dim = inputs.one()
        self.encoder = nn.Linear(dim, own.embed) if own.embed else None

    def forward(self, episodes: Episodes) -> Tensor:
        support, query = single(episodes)
        each = self.directed(support, query)
        return self._logits(self._combined(each), support, query).to(query.x.dtype)

    def loss(self, episodes: Episodes) -> Losses:
        """Cross-entropy; in the reversed form the mean over the two playing directions."""
        support, query = single(episodes)
        each = self.directed(support, query)
        scored = each if self.settings.direction == "reversed" else [self._combined(each)]
        terms = [cross_entropy(self._logits(d, support, query), episodes.query_label) for d in scored]
        value = torch.stack(terms).mean()
        return Losses(value, {"ce": value})

    def distances(self, support: Stream, query: Stream) -> Tensor:
        """One minus the cosine of every frame pair, [Tq, Ts, B, Q, N*K]."""
        s, q = widened(support).x.flatten(1, 2), widened(query).x
        if self.encoder is not None:
            s, q = (self.encoder(x.to(self.encoder.weight.dtype)).to(x.dtype) for x in (s, q))
        # steps before clips, so that the pair axes come out innermost and are copied in long runs
        product = cosine(
            q.transpose(1, 2).flatten(1, 2), s.transpose(1, 2).flatten(1, 2), self.settings.epsilon
        )
        shaped = product.unflatten(1, (q.shape[2], q.shape[1])).unflatten(-1, (s.shape[2], s.shape[1]))
        by_step = shaped.permute(1, 3, 0, 2, 4).contiguous()
        return 1 - by_step if by_step.requires_grad else by_step.neg_().add_(1)

    def directed(self, support: Stream, query: Stream) -> list[Tensor]:
        """The alignment costs [B, Q, N*K] that make up the clip distance, one or two of them."""
        matrix = self.distances(support, query)
        return self._paths(matrix, *self._lengths(support, query, matrix.shape[:2]))

    def _paths(self, matrix: Tensor, rows: Tensor | None, columns: Tensor | None) -> list[Tensor]:
        """The same of frame distances [Tq, Ts, B, Q, N*K] and the steps that count."""
        gamma, direction = self.settings.gamma, self.settings.direction
        if direction == "one":
            return [alignment(matrix, gamma, rows, columns)]
        turned = matrix.transpose(0, 1)
        along_query = alignment(turned, gamma, columns, rows)
        if direction == "both":
            return [alignment(matrix, gamma, rows, columns), along_query]
        return [along_query, alignment(backwards(turned, columns, rows), gamma, columns, rows)]

    def _lengths(
        self, support: Stream, query: Stream, whole: tuple[int, ...]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Steps that count, of queries [B, Q, 1] and supports [B, 1, N*K]; None where every clip is whole."""
        rows, columns = query.length[..., None].clamp(min=1), support.length.flatten(1)[:, None].clamp(min=1)
        if bool((rows == whole[0]).all()) and bool((columns == whole[1]).all()):
            return None, None
        return rows, columns

    def _combined(self, each: list[Tensor]) -> Tensor:
        both = torch.stack(each)
        return both.mean(0) if self.settings.direction == "reversed" else both.sum(0)

    def _logits(self, distance: Tensor, support: Stream, query: Stream) -> Tensor:
        """Minus the mean distance [B, Q, N] to the present supports; distance [B, Q, N*K]."""
        ways = support.present.shape[1]
        there = support.present.to(distance.dtype)
        mean = torch.einsum("bqnk,bnk->bqn", distance.unflatten(-1, (ways, -1)), there)
        mean = mean / there.sum(2).clamp(min=1)[:, None]
        return neutral(-mean, query.present, support.present.any(2))

    def pair_exchanges(self, bank: FeatureBank) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The distances of two clips' frames serve both roles."""
        (table,) = bank.tables.values()

        def both(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
            here, there = table.gather(rows), table.gather(columns)
            support, query = as_classes(there), as_queries(here)
            matrix = self.distances(support, query)
            long, wide = self._lengths(support, query, matrix.shape[:2])
            forth = self._combined(self._paths(matrix, long, wide))
            back = self._combined(self._paths(matrix.transpose(0, 1), wide, long)).transpose(1, 2)
            logits = (
                self._logits(forth, support, query),
                self._logits(back, as_classes(here), as_queries(there)),
            )
            first, second = (x[0].to(here.x.dtype).float() for x in logits)
            return first, second

        return both

    def pool_shots(self, pair: Tensor) -> Tensor:
        """A class's distance is the mean over its supports."""
        return pair.mean(-1)

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """The distance matrices, their transposed copy and the working columns."""
        pairs = ways * shots * queries
        return 4 * pairs * (2 * self.steps**2 + 4 * self.steps)
