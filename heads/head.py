"""The head contract: what every method is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..cache.bank import FeatureBank
from ..cache.table import TensorTable
from ..episodes.batch import Episodes, Stream
from ..episodes.gather import materialise
from ..episodes.protocol import Protocol
from ..episodes.sampler import EpisodeIndex
from ..errors import UsageError
from .parts.losses import cross_entropy
from .scoring.gram import gram_of, repeats
from .scoring.pairs import as_one_episode, pair_matrix, pair_scorer, pays
from .settings import Recipe, Settings


@dataclass(frozen=True)
class Inputs:
    """What a head will be built for.

    streams: per modality (T, D). word_dim: E, None without class words. base_classes: classes of the base split.
    way: the largest way of the evaluation (for heads with a fixed-way classifier). shot: supports a class (for heads
    whose size depends on them), None where they vary.
    """

    streams: Mapping[str, tuple[int, int]]
    word_dim: int | None = None
    base_classes: int = 0
    way: int = 5
    shot: int | None = None

    def one(self) -> tuple[str, int, int]:
        """(modality, T, D) of the only stream. Raises UsageError where there are several."""
        if len(self.streams) != 1:
            raise UsageError(
                f"This head takes one modality and got {', '.join(self.streams)}; choose one with --modalities or "
                "join them with --fusion ec, ea or lf."
            )
        ((name, (steps, dim)),) = self.streams.items()
        return name, steps, dim


@dataclass
class Losses:
    """A training objective: ``total`` is what is minimised, ``parts`` its named terms (for the log)."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Scorer:
    """A function from drawn episodes to their logits [B, Q, N], prepared for a test.

    of_numbers: it reads a few numbers for every pair of clips and no features, so that many episodes at once pay.
    """

    score: Callable[[EpisodeIndex], Tensor]
    of_numbers: bool = False

    def __call__(self, index: EpisodeIndex) -> Tensor:
        return self.score(index)


class Head(nn.Module):
    """A method: maps a batch of episodes to logits.

    Subclasses set ``settings_class`` and ``recipe``, build their weights in ``__init__`` from ``inputs`` and
    ``settings``, and override ``forward`` (and ``loss`` where the objective is more than cross-entropy).

    sequences: whether the head reads time; others are handed features averaged over time (T = 1), which is faster.
    batchwise: trained on batches of base clips (``batch_loss``) instead of episodes (``loss``).
    inner_products: whether logits depend on features through inner products (then ``gram_logits`` exists), or through
        them and what each clip gives by itself (then ``gram_scorer`` does).
    pairwise: whether a one-shot logit depends on the query and the class's support alone, and on no word; pools_shots:
        whether ``pool_shots`` then makes logits of several supports a class.
    light: whether scoring takes no gradients and gains from forked processes (small operations, or many).
    all_cores: whether training asks for every core (steps of seconds, of large operations), not for half of them.
    position_tied: whether weights belong to class positions 0..N-1, so that permuting the classes of an episode
        permutes the logits' columns only in distribution (such heads serve at most ``inputs.way`` classes).
    """

    settings_class: ClassVar[type[Settings]] = Settings
    recipe: ClassVar[Recipe] = Recipe()
    sequences: ClassVar[bool] = False
    batchwise: bool = False
    inner_products: bool = False
    pairwise: bool = False
    pools_shots: ClassVar[bool] = False
    light: bool = False
    all_cores: ClassVar[bool] = False
    position_tied: ClassVar[bool] = False

    def __init__(self, inputs: Inputs, settings: Settings | None = None) -> None:
        super().__init__()
        self.inputs = inputs
        self.settings: Any = settings if settings is not None else self.settings_class()

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def loss(self, episodes: Episodes) -> Losses:
        """Mean cross-entropy over the queries that exist."""
        value = cross_entropy(self(episodes), episodes.query_label)
        return Losses(value, {"ce": value})

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """Objective of one batch of base clips, for heads of the batch regime.

        clips: per modality a Stream [M, T, D]; label: int64 [M] over the base classes; words: [C, E] of all base
        classes, or None.
        """
        raise TypeError(f"{type(self).__name__} is not trained on batches of clips")

    def fit_base(self, base: FeatureBank) -> None:
        """Closed-form statistics of the base classes (means, ridge maps); called once before training or evaluation.

        Results belong in buffers, so that a checkpoint holds them. Nothing by default.
        """

    @torch.no_grad()
    def score(
        self,
        bank: FeatureBank,
        index: EpisodeIndex,
        protocol: Protocol,
        unlabelled: FeatureBank | None = None,
    ) -> Tensor:
        """Logits [B, Q, N] of drawn episodes. Heads that can skip gathering features override this."""
        return self(materialise(bank, index, protocol, unlabelled))

    def scorer(
        self, bank: FeatureBank, protocol: Protocol, episodes: int, unlabelled: FeatureBank | None = None
    ) -> Scorer:
        """Drawn episodes to logits, prepared for scoring ``episodes`` of them over this bank."""
        gram = gram_of(self, bank, protocol, episodes)
        if gram is not None:
            return Scorer(self.gram_scorer(gram, bank), of_numbers=True)
        if pays(self, bank, protocol, episodes):
            return Scorer(pair_scorer(self, pair_matrix(self, bank)), of_numbers=True)
        if repeats(bank, protocol, episodes):
            prepared = self.prepared(bank)
            if prepared is not None:
                return prepared
        return Scorer(lambda index: self.score(bank, index, protocol, unlabelled))

    def prepared(self, bank: FeatureBank) -> Scorer | None:
        """Drawn episodes to logits where each clip's part of the work has been done once; None: no such way.

        Every drawn clip is there with all that the bank holds of it.
        """
        return None

    def points(self, bank: FeatureBank) -> Tensor | None:
        """Features [n, D] of all clips, whose inner products ``gram_logits`` reads; None where there are none."""
        table = next(iter(bank.tables.values())) if len(bank.tables) == 1 else None
        return table.x[:, 0] if isinstance(table, TensorTable) and table.steps == 1 else None

    def gram_scorer(self, gram: Tensor, bank: FeatureBank) -> Callable[[EpisodeIndex], Tensor]:
        """A function from drawn episodes to logits, from inner products [n, n] of all clips' ``points``."""
        return lambda index: self.gram_logits(gram, index)

    def gram_logits(self, gram: Tensor, index: EpisodeIndex) -> Tensor:
        """Logits [B, Q, N] from inner products [n, n] of all clips' ``points``, for heads with ``inner_products``."""
        raise TypeError(f"{type(self).__name__} needs features, not inner products")

    def pair_scores(self, bank: FeatureBank) -> Callable[[Tensor, Tensor], Tensor]:
        """For heads with ``pairwise``: a function from clips as queries [r] and as one-shot supports [c] to [r, c]."""
        return lambda rows, columns: as_one_episode(self, bank, rows, columns)

    def pair_exchanges(self, bank: FeatureBank) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
        """The same in both roles, [rows, columns] and [columns, rows] at once; None where the roles share no work."""
        return None

    def pool_shots(self, pair: Tensor) -> Tensor:
        """Logits [B, Q, N] from one-shot logits [B, Q, N, K], for heads with ``pools_shots``."""
        raise TypeError(f"{type(self).__name__} does not score supports one by one")

    def episode_bytes(self, ways: int, shots: int, queries: int) -> int:
        """Bytes one episode needs beside its features (pair tensors and the like); sizes the evaluation's chunks."""
        return 0

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        """Logits [B, Q, N] of each modality alone, where the head has such a thing (for modality reliability)."""
        return {}
