"""EM-Dirichlet: Transductive Zero-Shot and Few-Shot CLIP (Martin, Huang, Shakeri, Pesquet and Ben Ayed, CVPR 2024).

A clip is the posterior that class words give it, a point of the simplex, and a class is a Dirichlet distribution of
such points. Expectation and maximisation take turns over the queries of a task, with its supports where there are any;
the shares of the classes are fitted too, with a weight that empties classes. Transductive: no query label and no class
balance is used. Without supports the clusters that come out are named by the class words. Where no text tower shares a
space with the features, a ridge map from features to words stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...cache.table import Stream
from ...episodes.batch import Episodes
from ...errors import UsageError
from ..embedding.ridge_words import RidgeWords, RidgeWordsSettings
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.absence import neutral, zero_where_absent
from ..parts.context import TaskContext
from ..parts.dirichlet import log_density, most_likely
from ..parts.distances import cosine_to
from ..parts.naming import as_classes, cluster_names
from ..parts.task import work_dtype
from ..parts.tensors import single
from ..settings import Count, CountOrNone, NonNegative, Positive, Settings

_EPSILON = 1e-15  # added to probabilities below a logarithm; a cluster of less mass than this is empty
_EMPTY = -10.0  # what stands for the mean logarithm of an empty cluster


@dataclass(frozen=True)
class EMDirichletSettings(Settings):
    """EM-Dirichlet's settings."""

    assignment: Literal["soft", "hard"] = "soft"
    """Queries belong to classes in shares, or each to its likeliest class alone (Hard EM-Dirichlet)."""
    scores: Literal["auto", "cosine", "ridge"] = "auto"
    """What class words say of a clip: the cosine of features and words as they are, for words of the text tower that
    belongs to the clips' encoder, or that under a ridge map from features to words, which is fitted on the base clips;
    auto: the cosine where words are as wide as features."""
    sharpness: NonNegative = 0.0
    """The factor T of the cosines inside the softmax; 0: the paper's 30 for features as they are, and ridge-words's 10
    under the ridge map."""
    penalty: Positive = 1.0
    """The ridge of the map, relative to the mean squared feature entry times the number of clips."""
    iterations: CountOrNone = 0
    """Rounds of expectation and maximisation; 0: the paper's 20 for soft and 10 for hard assignments."""
    effective: Count = 5
    """The shares of the classes weigh floor(classes / this number). The released code has 5 without supports; with them
    it is told the true number of classes among the queries, which we never tell."""
    naming: Literal["graph", "basic"] = "graph"
    """Clusters without supports are named each by another class, the best matching of all, or each by its likeliest."""
    search: Literal["newton", "bound"] = "newton"
    """The search for the parameters of the Dirichlet distributions: Newton's steps where they raise the likelihood, or
    the published ones that maximise a lower bound, which end a little before the same parameters."""
    steps: Count = 1000
    """The most steps of that search, in each round."""
    tolerance: NonNegative = 1e-11
    """The squared relative change of a task's parameters at which that search ends."""


class Mixture(NamedTuple):
    """The state of the fit: parameters alpha [B, N, N], weights of the shares v [B, N], assignments u [B, Q, N].

    score: log p(z | alpha) + L v, [B, Q, N], of which u is the softmax or the maximum.
    """

    alpha: Tensor
    v: Tensor
    u: Tensor
    score: Tensor


class EMDirichlet(EncodingHead[EMDirichletSettings, Tensor, Tensor]):
    Settings = EMDirichletSettings

    def __init__(self, inputs: Inputs, settings: EMDirichletSettings) -> None:
        super().__init__(inputs, settings)
        _, _, dim = inputs.one()
        if settings.scores == "cosine" and inputs.word_dim not in (None, dim):
            raise UsageError(
                f"scores=cosine needs words as wide as the features, and got {inputs.word_dim} and {dim} numbers; name "
                "the text tower's stream with --words, or use scores=ridge."
            )
        self.mapped = settings.scores == "ridge" or (settings.scores == "auto" and inputs.word_dim != dim)
        self.ridge = RidgeWords(inputs, RidgeWordsSettings(penalty=settings.penalty))

    def fit_base(self, base: FeatureBank) -> None:
        """Fits the ridge map to words where it is used."""
        if self.mapped:
            self.ridge.fit_base(base)

    def encode(self, clips: Stream) -> Tensor:
        """What stands for clips beside words: features [..., D], or their images [..., E] under the map."""
        x = clips.pooled().to(work_dtype(clips.x.dtype))
        return zero_where_absent(self.ridge.image(x) if self.mapped else x, clips.present)

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]. Raises UsageError where there are no class words."""
        support, query = single(episodes)
        context = TaskContext(support.present, query.present, episodes.words)
        logits = self.compare(self.encode(support), self.encode(query), context)
        return neutral(logits, query.present, torch.ones_like(context.class_present))

    def compare(self, support: Tensor, query: Tensor, context: TaskContext) -> Tensor:
        """Logits [B, Q, N]: log u of classes; tasks without any support have their clusters named by words."""
        z_support = self.posteriors(support.flatten(1, 2), context.words)
        z_query = self.posteriors(query, context.words)
        fitted = self.fit(z_support, context.support_present, z_query, context.query_present)
        score = torch.log_softmax(fitted.score, -1)
        unnamed = ~context.support_present.flatten(1).any(1)
        if bool(unnamed.any()):
            own = torch.arange(score.shape[-1], device=score.device).expand(len(score), -1)
            found = cluster_names(
                score.argmax(-1), z_query, context.query_present, matching=self.settings.naming == "graph"
            )
            score = as_classes(score, torch.where(unnamed[:, None], found, own))
        return score.to(query.dtype)

    def posteriors(self, x: Tensor, words: Tensor | None) -> Tensor:
        """What words [B, N, E] say of encoded clips [B, M, E]: rows [B, M, N] of probabilities, in float64."""
        if words is None:
            raise UsageError("EM-Dirichlet needs class words; extract a word stream.")
        names = self.ridge.names(words.to(x.dtype)) if self.mapped else words.to(x.dtype)
        sharpness = self.settings.sharpness or (10.0 if self.mapped else 30.0)
        return torch.softmax(sharpness * cosine_to(x.double(), names.double()), -1)

    def fit(
        self, z_support: Tensor, support_present: Tensor, z_query: Tensor, query_present: Tensor
    ) -> Mixture:
        """The mixture after the last round (see ``rounds``)."""
        *_, last = self.rounds(z_support, support_present, z_query, query_present)
        return last

    @torch.no_grad()
    def rounds(
        self, z_support: Tensor, support_present: Tensor, z_query: Tensor, query_present: Tensor
    ) -> Iterator[Mixture]:
        """The mixture after each round.

        z_support: posteriors of the supports [B, N*K, N], class by class; z_query: those of the queries [B, Q, N];
        support_present: bool [B, N, K]; query_present: bool [B, Q].
        """
        given, (batch, _, ways) = self.settings, z_query.shape
        asked, held = query_present[..., None].to(z_query.dtype), support_present.to(z_query.dtype)
        l_support, l_query = (z_support + _EPSILON).log(), (z_query + _EPSILON).log()
        total = torch.einsum("bnk,bnkc->bnc", held, l_support.unflatten(1, support_present.shape[1:]))
        weight = float(ways // given.effective)
        u, alpha = z_query * asked, z_query.new_ones(batch, ways, ways)
        for _ in range(given.iterations or (20 if given.assignment == "soft" else 10)):
            mass = (held.sum(2) + u.sum(1))[..., None]
            full = mass > _EPSILON
            mean = (total + u.transpose(1, 2) @ l_query) / mass.clamp(min=_EPSILON)
            mean = torch.where(full, mean, _EMPTY)
            found = most_likely(
                alpha,
                mean,
                steps=given.steps,
                tolerance=given.tolerance,
                newton=given.search == "newton",
            )
            alpha = torch.where(full, found, alpha)
            v = (u.sum(1) / asked.sum(1).clamp(min=1) + _EPSILON).log() + 1
            score = log_density(alpha, l_query) + weight * v[:, None]
            u = torch.softmax(score, -1)
            if given.assignment == "hard":
                u = F.one_hot(u.argmax(-1), ways).to(u.dtype)
            u = u * asked
            yield Mixture(alpha, v, u, score)
