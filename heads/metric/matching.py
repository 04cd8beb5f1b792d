"""Matching Networks: Matching Networks for One Shot Learning (Vinyals et al., NeurIPS 2016).

A query attends to all supports by a softmax over similarities, and a class's probability is the attention that its
supports receive. With full context embeddings (``matching-fce``) supports are first read again in the light of one
another by a bidirectional LSTM, and a query by an LSTM that attends to them. Inductive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.recurrent import BothWays, zero_init
from ..parts.task import Task, pooled_task
from ..parts.tensors import class_sum
from ..scoring.gram import FromGram, Products, plain_points, unit_points
from ..scoring.shortcut import Shortcut
from ..settings import CountOrNone, Positive, Recipe, Settings

SMALLEST = 1e-8  # Probabilities are kept this far from 0 and 1.


@dataclass(frozen=True)
class MatchingSettings(Settings):
    """The settings of Matching Networks."""

    distance: Literal["cosine", "l2", "dot"] = "cosine"
    """One minus the cosine, the squared Euclidean distance, or minus the inner product."""
    scale: Positive = 1.0
    """The factor of minus the distance inside the softmax."""
    query_raw: bool = False
    """Leave the query at its own length in the cosine, as the re-implementation in easyfsl does."""


@dataclass(frozen=True)
class FullContextSettings(MatchingSettings):
    """The settings of Matching Networks with full context embeddings."""

    scale: Positive = 10.0
    """The factor of minus the distance inside the softmax; with the bare cosine (1, as re-implemented) the softmax is
    too flat for the LSTMs to learn from."""
    width: CountOrNone = 16
    """The width of the LSTMs; features are mapped to it, and the change that the LSTMs bring is mapped back. 0: the
    features' own width, without maps."""
    unrolling: CountOrNone = 2
    """The steps of the query's attention LSTM."""
    order: Literal["centrality", "given"] = "centrality"
    """The order in which supports are read: those nearest to the supports' mean first, so that predictions do not
    depend on how classes happen to be numbered; or the given order, as in re-implementations."""
    start: bool = True
    """The LSTMs begin with an output of zero, so that the untrained head is the plain one; false: at random."""


M = TypeVar("M", bound=MatchingSettings)


class AttentionHead(Head[M]):
    """What both heads have in common: a class's probability is the attention that its supports receive."""

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]: the logarithms of the classes' probabilities."""
        task = self.embedded(pooled_task(episodes, self))
        return neutral(_logarithm(self.probabilities(task)), task.query_present, task.class_present)

    def loss(self, episodes: Episodes) -> Losses:
        """The negative log-likelihood of the true class."""
        if episodes.multi:
            return super().loss(episodes)
        value = F.nll_loss(self(episodes).flatten(0, 1), episodes.query_label.flatten(), ignore_index=-1)
        return Losses(value, {"nll": value})

    def embedded(self, task: Task) -> Task:
        """The task's features as they are; full context embeddings change them here."""
        return task

    def probabilities(self, task: Task) -> Tensor:
        """The attention [B, Q, N] that each class's supports receive."""
        similarity = self.settings.scale * self.similarity(task.query, task.support.flatten(1, 2))
        present = task.support_present.flatten(1, 2)[:, None, :]
        attention = torch.softmax(similarity.masked_fill(~present, -1e4), -1)
        return class_sum(attention, task.support_present.shape[1])

    def similarity(self, query: Tensor, support: Tensor) -> Tensor:
        """Minus the distance [B, Q, M] of queries [B, Q, D] and supports [B, M, D]."""
        if self.settings.distance == "l2":
            return -squared_distances(query, support)
        if self.settings.distance == "dot" or self.settings.query_raw:
            unit = self.settings.distance == "cosine"
            return query @ (F.normalize(support, dim=-1) if unit else support).transpose(1, 2)
        return cosine(query, support) - 1

    def shortcuts(self) -> Iterator[Shortcut]:
        if not self.settings.query_raw:
            unit = self.settings.distance == "cosine"
            yield FromGram(logits=self._from_products, points=unit_points if unit else plain_points)

    def _from_products(self, products: Products) -> Tensor:
        """Logits of products; what is the same for all supports of a query is nothing to the softmax."""
        similarity = products.query_support
        if self.settings.distance == "l2":
            similarity = 2 * similarity - products.support_square[:, None]
        attention = torch.softmax(self.settings.scale * similarity.flatten(2), -1)
        return _logarithm(class_sum(attention, similarity.shape[2]))


def _logarithm(probability: Tensor) -> Tensor:
    return probability.clamp(SMALLEST, 1 - SMALLEST).log()


class Matching(AttentionHead[MatchingSettings]):
    Settings = MatchingSettings


class FullContextMatching(AttentionHead[FullContextSettings]):
    """Matching Networks with full context embeddings.

    The published attention LSTM takes [h, r] as its hidden state; as in the re-implementations they are added here,
    which keeps the LSTM's width that of the embedding.
    """

    Settings = FullContextSettings
    recipe = Recipe(steps=400, clip_norm=1.0, mix=0.5)

    def __init__(self, inputs: Inputs, settings: FullContextSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        width = settings.width or dim
        self.down = nn.Linear(dim, width, bias=False) if settings.width else nn.Identity()
        self.up = nn.Linear(width, dim, bias=False) if settings.width else nn.Identity()
        self.context = BothWays(nn.LSTM, width, width)
        self.reader = nn.LSTMCell(width, width)
        if settings.start:
            for cell in (self.context.ahead, self.context.back, self.reader):
                zero_init(cell)

    def embedded(self, task: Task) -> Task:
        support, present = task.support.flatten(1, 2), task.support_present.flatten(1, 2)
        s, q = self.down(support), self.down(task.query)
        g = s + self._context(s, present, self._reading_order(support, present))
        f = self._read(q, self._input_gates(q), g, present)
        support = support + self.up(g - s) if self.settings.width else g
        query = task.query + self.up(f - q) if self.settings.width else f
        support = support * present[..., None].to(support.dtype)
        return task._replace(support=support.view_as(task.support), query=query)

    def _reading_order(self, support: Tensor, present: Tensor) -> Tensor:
        """The order [B, M] in which supports [B, M, D] are read; absent ones come last."""
        if self.settings.order == "given":
            return torch.argsort(~present, dim=1, stable=True)
        weight = present[..., None].to(support.dtype)
        centre = (support * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        cosine_to_centre = cosine(support, centre).squeeze(-1)
        return torch.argsort(
            cosine_to_centre.masked_fill(~present, -2.0), dim=1, descending=True, stable=True
        )

    def _context(self, s: Tensor, present: Tensor, order: Tensor) -> Tensor:
        """What the bidirectional LSTM adds to each support, [B, M, W]."""
        index = order[..., None].expand_as(s)
        ahead, back = self.context(torch.gather(s, 1, index), present.sum(1))
        return torch.zeros_like(s).scatter(1, index, ahead + back)

    def _input_gates(self, q: Tensor) -> Tensor:
        """What a query gives the gates of its own LSTM at every step, [..., 4 W]."""
        return F.linear(q, self.reader.weight_ih, self.reader.bias_ih + self.reader.bias_hh)

    def _read(self, q: Tensor, input_gates: Tensor, g: Tensor, present: Tensor) -> Tensor:
        """The embeddings f [B, Q, W] of queries q [B, Q, W], by an LSTM that attends to supports g at every step."""
        memory, hidden = torch.zeros_like(q), torch.zeros_like(q)
        for _ in range(self.settings.unrolling):
            h = hidden + q
            weight = torch.softmax((h @ g.transpose(1, 2)).masked_fill(~present[:, None, :], -1e4), -1)
            gates = input_gates + F.linear(h + weight @ g, self.reader.weight_hh)
            enter, keep, cell, leave = gates.chunk(4, -1)
            memory = keep.sigmoid() * memory + enter.sigmoid() * cell.tanh()
            hidden = leave.sigmoid() * memory.tanh()
        return hidden + q

    def shortcuts(self) -> Iterator[Shortcut]:
        """With maps and the cosine, products of changed clips follow from those of the clips and small vectors."""
        if (
            isinstance(self.up, nn.Linear)
            and self.settings.distance == "cosine"
            and not self.settings.query_raw
        ):
            yield FromGram(scorer=partial(self._scorer, self.up.weight))

    def _scorer(self, up: Tensor, gram: Tensor, x: Tensor, bank: FeatureBank) -> Callable[[Products], Tensor]:
        """Logits of products, where each clip is mapped down once for all episodes.

        With q' = q + U a and s' = s + U b, <q', s'> = <q, s> + <U'q, b> + <a, U's> + <a, U'U b>: only what the LSTMs
        add is new to the inner products. up: U [D, W]; gram [n, n]: inner products of the clips x [n, D].
        """
        x = x.to(up.dtype)
        low, lifted, square = self.down(x), x @ up, gram.diagonal()
        input_gates, turn = self._input_gates(low), up.T @ up

        def changed(rows: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
            """U'U times the changes [B, M, W] of the clips at rows [B, M], and the clips' new lengths [B, M]."""
            turned = change @ turn
            new = square[rows] + (change * (2 * lifted[rows] + turned)).sum(-1)
            return turned, new.clamp(min=0).sqrt()

        def logits(products: Products) -> Tensor:
            support, query = products.support.flatten(1), products.query
            present = torch.ones_like(support, dtype=torch.bool)
            s, q = low[support], low[query]
            added = self._context(s, present, self._reading_order(x[support], present))
            change = self._read(q, input_gates[query], s + added, present) - q
            (_, s_length), (turned, q_length) = changed(support, added), changed(query, change)
            product = products.query_support.flatten(2) + change @ lifted[support].transpose(1, 2)
            product = product + (lifted[query] + turned) @ added.transpose(1, 2)
            similarity = product / (q_length[..., None] * s_length[:, None]).clamp(min=1e-12)
            attention = torch.softmax(self.settings.scale * similarity, -1)
            return _logarithm(class_sum(attention, products.support.shape[1]))

        return logits
