"""Heads of which class words are half: a classifier from words beside what the supports of a task say.

A head of this kind writes one step, the logits of a :class:`WordTask`; where it weighs supports against words by
numbers that its authors searched on labelled validation data, base classes choose them here (:class:`BlendingHead`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.sampler import Sampler
from ...errors import UsageError
from ..decided import Decided
from ..head import Head, Inputs
from ..parts.absence import neutral
from ..parts.base_episodes import base_protocol
from ..parts.distances import cosine
from ..parts.task import pooled_task
from ..settings import Positive, Settings
from .word_weights import WordWeights

EPISODES = 200
_AT_ONCE = 20


@dataclass(frozen=True)
class WordSettings(Settings):
    """The settings of a head of which class words are half."""

    space: Literal["auto", "shared", "mapped"] = "auto"
    """Where class words lie: in the space of the features, as behind a text tower ("shared"), or elsewhere, so that a
    ridge regression fitted to base classes maps them ("mapped"); "auto": shared where they are as wide as features."""
    scale: Positive | None = None
    """The factor of the cosines with class words; none: 100 in a shared space, as CLIP learned it, and the one of least
    log-loss on base classes for mapped words."""


class Samples(NamedTuple):
    """Labelled samples x [B, M, D], their labels as zeros and ones [M, N], and how much each counts, [B, M].

    The counts of an episode add up to one, and those of absent samples are zero.
    """

    x: Tensor
    hot: Tensor
    share: Tensor

    def residual(self, logits: Tensor) -> Tensor:
        """The gradient of the weighted cross-entropy with respect to logits [B, M, N]."""
        return (torch.softmax(logits, -1) - self.hot) * self.share[..., None]


class WordTask(NamedTuple):
    """Features of length one of a batch of tasks, and the classifier that class words give.

    support: [B, N, K, D]; support_present: bool [B, N, K]; query: [B, Q, D]; query_present: bool [B, Q]; text: the
    weights [B, N, D] of class words, of any length; scale: the factor of cosines with them. Absent clips are zero.
    """

    support: Tensor
    support_present: Tensor
    query: Tensor
    query_present: Tensor
    text: Tensor
    scale: float

    @property
    def class_present(self) -> Tensor:
        """Which classes have a support, bool [B, N]."""
        return self.support_present.any(2)

    @property
    def text_logits(self) -> Tensor:
        """The logits [B, Q, N] of class words alone."""
        return self.scale * cosine(self.query, self.text)

    def samples(self) -> Samples:
        """The supports as samples to train on."""
        ways, shots = self.support.shape[1:3]
        hot = torch.eye(ways, dtype=self.support.dtype, device=self.support.device)
        present = self.support_present.flatten(1).to(self.support.dtype)
        return Samples(
            self.support.flatten(1, 2),
            hot.repeat_interleave(shots, 0),
            present / present.sum(1, keepdim=True).clamp(min=1),
        )


W = TypeVar("W", bound=WordSettings)


class WordHead(Head[W]):
    """A head with a classifier from class words; a subclass writes :meth:`decide`."""

    decided: ClassVar[Mapping[str, Decided]] = dict.fromkeys(("word_ridge", "scale"), Decided("base"))

    def __init__(self, inputs: Inputs, settings: W) -> None:
        """Raises UsageError where there are no class words, or words said to be shared are not as wide as features."""
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        width = inputs.word_dim
        if width is None:
            raise UsageError(f"{type(self).__name__} needs class words; name a word stream with --words.")
        if settings.space == "shared" and width != dim:
            raise UsageError(
                f"space=shared needs class words as wide as the features, and they have {width} and {dim} numbers; "
                "use space=mapped."
            )
        shared = width == dim and settings.space != "mapped"
        self.words = WordWeights(width, dim, shared=shared, scale=settings.scale)

    def fit_base(self, base: FeatureBank) -> None:
        """Fits the map from class words to features."""
        self.words.fit(base)

    def chosen(self) -> dict[str, Any]:
        """What base classes chose of the map of words."""
        return self.words.chosen()

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]; words tell of every class, those without supports among them."""
        task = self.task(episodes)
        every_class = torch.ones_like(task.class_present)
        return neutral(self.decide(task), task.query_present, every_class)

    def task(self, episodes: Episodes) -> WordTask:
        """What the head reads of episodes. Raises UsageError where they have no class words."""
        if episodes.words is None:
            raise UsageError(f"{type(self).__name__} needs class words; name a word stream with --words.")
        task = pooled_task(episodes)
        return WordTask(
            F.normalize(task.support, dim=-1),
            task.support_present,
            F.normalize(task.query, dim=-1),
            task.query_present,
            self.words(episodes.words.to(task.query)),
            float(self.words.scale),
        )

    def decide(self, task: WordTask) -> Tensor:
        """Logits [B, Q, N] of a task."""
        raise TypeError(f"{type(self).__name__} does not define decide")


E = TypeVar("E")


class BlendingHead(WordHead[W], Generic[W, E]):
    """A head that weighs what supports say against words, by a few numbers that base classes choose.

    ``evidence`` is what does not depend on them, ``blended`` the logits with a row of numbers. The published methods
    search them on labelled validation clips of the very classes that are tested, which a few-shot task does not have.
    """

    names: tuple[str, ...]
    """What the numbers are called, as settings of the same names; None there lets base classes choose."""
    start: tuple[float, ...]
    """The numbers where base classes cannot choose."""
    blend: Tensor
    tried: Tensor

    def __init__(self, inputs: Inputs, settings: W) -> None:
        super().__init__(inputs, settings)
        given = [getattr(settings, name) for name in self.names]
        first = [other if own is None else own for own, other in zip(given, self.start)]
        self.register_buffer("blend", torch.tensor(first, dtype=torch.float64))
        self.register_buffer("tried", torch.zeros(()))

    def grid(self) -> list[tuple[float, ...]]:
        """The candidates, in the order in which the first best one is taken."""
        raise TypeError(f"{type(self).__name__} does not define grid")

    def evidence(self, task: WordTask) -> E:
        """What the logits of every candidate are made of."""
        raise TypeError(f"{type(self).__name__} does not define evidence")

    def blended(self, task: WordTask, evidence: E, blend: tuple[float, ...]) -> Tensor:
        """Logits [B, Q, N] with these numbers."""
        raise TypeError(f"{type(self).__name__} does not define blended")

    def decide(self, task: WordTask) -> Tensor:
        return self.blended(task, self.evidence(task), tuple(self.blend.tolist()))

    def candidates(self) -> list[tuple[float, ...]]:
        """The candidates of the grid that agree with what is set."""
        given = [getattr(self.settings, name) for name in self.names]
        fixed = [tuple(c if own is None else own for own, c in zip(given, row)) for row in self.grid()]
        return list(dict.fromkeys(fixed))

    def chosen(self) -> dict[str, Any]:
        if not bool(self.tried):
            return super().chosen()
        return {**super().chosen(), **dict(zip(self.names, self.blend.tolist()))}

    @torch.no_grad()
    def fit_base(self, base: FeatureBank) -> None:
        """Fits the map of words, and takes the candidate that is the first best on episodes of base classes.

        A base class's words are read as a map that has not seen the class reads them, as novel classes are.
        """
        unseen = self.words.fit(base)
        candidates = self.candidates()
        if unseen is None or len(candidates) == 1:
            return
        accuracy = self.accuracy(base.pooled(), unseen, candidates)
        if accuracy is not None:
            self.blend.copy_(self.blend.new_tensor(candidates[accuracy.index(max(accuracy))]))
            self.tried.fill_(1.0)

    def accuracy(
        self, base: FeatureBank, text: Tensor, candidates: list[tuple[float, ...]]
    ) -> list[float] | None:
        """The queries of base classes that each candidate gets right, over episodes; None where there are none.

        text: the weights [C, D] of the base classes' words.
        """
        protocol = base_protocol(base, self.inputs.way, self.inputs.shot)
        if protocol is None:
            return None
        right = [0.0] * len(candidates)
        (table,) = base.tables.values()
        for index in Sampler(base, protocol).batches(0, EPISODES, _AT_ONCE):
            support = table.gather(index.support.to(base.device))
            query = table.gather(index.query.to(base.device))
            task = WordTask(
                F.normalize(support.pooled().double(), dim=-1) * support.present[..., None],
                support.present,
                F.normalize(query.pooled().double(), dim=-1) * query.present[..., None],
                query.present,
                text[index.classes.to(text.device)].double(),
                float(self.words.scale),
            )
            evidence, label = self.evidence(task), index.query_label.to(base.device)
            for number, candidate in enumerate(candidates):
                hit = self.blended(task, evidence, candidate).argmax(-1) == label
                right[number] += float((hit & query.present).sum())
        return right
