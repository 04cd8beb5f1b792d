"""Matching Networks for One Shot Learning (Vinyals et al., NeurIPS 2016).

A query attends to all supports by a softmax over similarities, and a class's probability is the attention its
supports receive. With full context embeddings (``matching-fce``) supports are first re-read in the light of one
another by a bidirectional LSTM, and a query by an LSTM that attends to them. Inductive.
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
from ...errors import unknown
from ..head import Head, Inputs, Losses
from ..parts.absence import neutral
from ..parts.distances import cosine, squared_distances
from ..parts.recurrent import BothWays, silence
from ..parts.task import Task, pooled_task
from ..parts.tensors import class_sum
from ..scoring.gram import query_support
from ..settings import Recipe, Settings

_LEAST = 1e-8  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class MatchingSettings(Settings):
    """distance: "cosine" (one minus it), "l2" (squared) or "dot" (minus the product). scale: multiplies -distance.

    query_raw: leave the query unnormalised in the cosine (the easyfsl re-implementation).
    """

    distance: str = "cosine"
    scale: float = 1.0
    query_raw: bool = False


@dataclass(frozen=True)
class FullContextSettings(MatchingSettings):
    """scale: as above; a softmax of bare cosines (1, as re-implemented) is too flat for the LSTMs to learn from.

    width: of the LSTMs; features are mapped to it and the change they bring is mapped back. 0: the features' own.
    unrolling: steps of the query's attention LSTM.
    order: in which the supports are read: "centrality" (nearest to the supports' mean first), so that predictions do
    not depend on how classes happen to be numbered; or "given" (re-implementations).
    start: LSTMs begin at zero output, so that the untrained head is the plain one; False: at random.
    """

    scale: float = 10.0
    width: int = 16
    unrolling: int = 2
    order: str = "centrality"
    start: bool = True


class Matching(Head):
    settings_class = MatchingSettings
    light = True

    def __init__(self, inputs: Inputs, settings: MatchingSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.distance not in ("cosine", "l2", "dot"):
            raise unknown("distance", self.settings.distance, ("cosine", "l2", "dot"))
        self.inner_products = not self.settings.query_raw

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits: log probabilities."""
        task = self.embedded(pooled_task(episodes, self))
        return neutral(_logs(self.probabilities(task)), task.asked, task.known)

    def points(self, bank: FeatureBank) -> Tensor | None:
        x = super().points(bank)
        return F.normalize(x.float(), dim=-1) if x is not None and self.settings.distance == "cosine" else x

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        similar = query_support(gram, index)
        if self.settings.distance == "l2":
            similar = 2 * similar - gram.diagonal()[index.support.to(gram.device)][:, None]
        # what is the same for all supports of a query (|q|^2, the cosine's one) is nothing to the softmax
        attention = torch.softmax(self.settings.scale * similar.flatten(2), -1)
        return _logs(class_sum(attention, similar.shape[2]))

    def loss(self, episodes: Episodes) -> Losses:
        """Negative log likelihood of the true class."""
        if episodes.multi:
            return super().loss(episodes)
        value = F.nll_loss(self(episodes).flatten(0, 1), episodes.query_label.flatten(), ignore_index=-1)
        return Losses(value, {"nll": value})

    def embedded(self, task: Task) -> Task:
        """Features as they are; full context embeddings override this."""
        return task

    def probabilities(self, task: Task) -> Tensor:
        """[B, Q, N]: the attention each class's supports receive."""
        support = task.support.flatten(1, 2)
        similar = self.settings.scale * self._similarity(task.query, support)
        shown = task.shown.flatten(1, 2)
        attention = torch.softmax(similar.masked_fill(~shown[:, None, :], -1e4), -1)
        return class_sum(attention, task.shown.shape[1])

    def _similarity(self, query: Tensor, support: Tensor) -> Tensor:
        """Minus the distance, [B, Q, N*K]."""
        if self.settings.distance == "l2":
            return -squared_distances(query, support)
        if self.settings.distance == "dot" or self.settings.query_raw:
            known = F.normalize(support, dim=-1) if self.settings.distance == "cosine" else support
            return query @ known.transpose(1, 2)
        return cosine(query, support) - 1


def _logs(probability: Tensor) -> Tensor:
    return probability.clamp(_LEAST, 1 - _LEAST).log()


class FullContextMatching(Matching):
    """Matching Networks with full context embeddings.

    The published attention LSTM takes [h, r] as its hidden state; as in the re-implementations they are added here,
    which keeps the LSTM's width that of the embedding.
    """

    settings_class = FullContextSettings
    recipe = Recipe(steps=400, clip_norm=1.0, mix=0.5)

    def __init__(self, inputs: Inputs, settings: FullContextSettings | None = None) -> None:
        super().__init__(inputs, settings)
        if self.settings.order not in ("centrality", "given"):
            raise unknown("order", self.settings.order, ("centrality", "given"))
        own: FullContextSettings = self.settings
        self.inner_products = own.distance == "cosine" and not own.query_raw and own.width > 0
        dim = inputs.one()[2]
        width = self.settings.width or dim
        self.down = nn.Linear(dim, width, bias=False) if self.settings.width else nn.Identity()
        self.up = nn.Linear(width, dim, bias=False) if self.settings.width else nn.Identity()
        self.context = BothWays(nn.LSTM, width, width)
        self.reader = nn.LSTMCell(width, width)
        if self.settings.start:
            silence(self.context.ahead)
            silence(self.context.back)
            silence(self.reader)

    def embedded(self, task: Task) -> Task:
        support, shown = task.support.flatten(1, 2), task.shown.flatten(1, 2)
        s, q = self.down(support), self.down(task.query)
        g = s + self._context(s, shown, self._order(support, shown))
        f = self._read(q, self._asked(q), g, shown)
        support = support + self.up(g - s) if self.settings.width else g
        query = task.query + self.up(f - q) if self.settings.width else f
        support = support * shown[..., None].to(support.dtype)
        return task._replace(support=support.view_as(task.support), query=query)

    def _order(self, support: Tensor, shown: Tensor) -> Tensor:
        """The order [B, N*K] in which supports are read; absent ones come last."""
        if self.settings.order == "given":
            return torch.argsort(~shown, dim=1, stable=True)
        weight = shown[..., None].to(support.dtype)
        centre = (support * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1)
        closeness = cosine(support, centre).squeeze(-1)
        return torch.argsort(closeness.masked_fill(~shown, -2.0), dim=1, descending=True, stable=True)

    def _context(self, s: Tensor, shown: Tensor, order: Tensor) -> Tensor:
        """What the bidirectional LSTM adds to each support, [B, N*K, W]."""
        index = order[..., None].expand_as(s)
        ahead, back = self.context(torch.gather(s, 1, index), shown.sum(1))
        return torch.zeros_like(s).scatter(1, index, ahead + back)

    def _asked(self, q: Tensor) -> Tensor:
        """What a query gives the gates of its own LSTM at every step, [..., 4 W]."""
        return F.linear(q, self.reader.weight_ih, self.reader.bias_ih + self.reader.bias_hh)

    def _read(self, q: Tensor, asked: Tensor, g: Tensor, shown: Tensor) -> Tensor:
        """f(query | supports) [B, Q, W]: an LSTM that attends to g at each of its steps."""
        memory, hidden = torch.zeros_like(q), torch.zeros_like(q)
        for _ in range(self.settings.unrolling):
            h = hidden + q
            weight = torch.softmax((h @ g.transpose(1, 2)).masked_fill(~shown[:, None, :], -1e4), -1)
            gates = asked + F.linear(h + weight @ g, self.reader.weight_hh)
            enter, keep, cell, leave = gates.chunk(4, -1)
            memory = keep.sigmoid() * memory + enter.sigmoid() * cell.tanh()
            hidden = leave.sigmoid() * memory.tanh()
        return hidden + q

    def points(self, bank: FeatureBank) -> Tensor | None:
        return Head.points(self, bank)

    def gram_scorer(self, gram: Tensor, bank: FeatureBank) -> Callable[[EpisodeIndex], Tensor]:
        """Each clip is mapped down once for all episodes, and only what the LSTMs add is new to its inner products.

        With q' = q + U a and s' = s + U b, <q', s'> = <q, s> + <U'q, b> + <a, U's> + <a, U'U b>.
        """
        x = self.points(bank)
        assert x is not None
        assert isinstance(self.up, nn.Linear)
        x = x.to(self.up.weight.dtype)
        with torch.no_grad():
            low, lifted, own = self.down(x), x @ self.up.weight, gram.diagonal()
            asked, turn = self._asked(low), self.up.weight.T @ self.up.weight

        def changed(row: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
            """U'U times the changes [B, M, W] of the clips at row [B, M], and their new lengths [B, M]."""
            turned = change @ turn
            return turned, (own[row] + (change * (2 * lifted[row] + turned)).sum(-1)).clamp(min=0).sqrt()

        @torch.no_grad()
        def score(index: EpisodeIndex) -> Tensor:
            support, query = index.support.to(gram.device).flatten(1), index.query.to(gram.device)
            shown = torch.ones_like(support, dtype=torch.bool)
            s, q = low[support], low[query]
            added = self._context(s, shown, self._order(x[support], shown))
            change = self._read(q, asked[query], s + added, shown) - q
            (_, known), (turned, length) = changed(support, added), changed(query, change)
            product = query_support(gram, index).flatten(2) + change @ lifted[support].transpose(1, 2)
            product = product + (lifted[query] + turned) @ added.transpose(1, 2)
            similar = product / (length[..., None] * known[:, None]).clamp(min=1e-12)
            attention = torch.softmax(self.settings.scale * similar, -1)
            return _logs(class_sum(attention, index.support.shape[1]))

        return score
