"""The contract of heads: what every method is given and what it gives back. Five members are all there is to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from ..cache.bank import FeatureBank
from ..episodes.batch import Episodes, Stream
from ..errors import UsageError
from .decided import Decided
from .parts.losses import cross_entropy
from .scoring.shortcut import Shortcut
from .settings import Recipe
from .settings import Settings as HeadSettings

S = TypeVar("S", bound=HeadSettings)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a head will be built for."""

    streams: Mapping[str, tuple[int, int]]
    """Per modality the number of steps T and the width D of its features."""
    word_dim: int | None = None
    """The width E of the class words; None where there are none."""
    base_classes: int = 0
    """How many classes the base split has, for heads with a classifier of them."""
    way: int = 5
    """The most classes an evaluated episode has, for heads whose weights belong to class positions."""
    shot: int | None = None
    """The supports a class, for heads whose size depends on them; None where they vary."""
    branches: Mapping[str, Callable[[Inputs], Head[HeadSettings]]] = field(default_factory=dict)
    """Makers of other methods, by name, for heads that are built of several (see ``Method.branches``)."""

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


class Head(nn.Module, Generic[S]):
    """A method: it maps a batch of episodes to logits.

    A subclass names its ``Settings`` and its training ``recipe``, builds its weights in ``__init__``, and writes
    ``forward``; ``loss``, ``fit_base`` and ``shortcuts`` only where it differs from what stands here. What else is to
    be known of a method (does it learn, does it read time, which modalities does it take) is its row of the registry.
    """

    Settings: ClassVar[type[HeadSettings]] = HeadSettings
    recipe: Recipe = Recipe()
    decided: ClassVar[Mapping[str, Decided]] = {}
    """What choices of the method are made on, by name, for those that neither the user nor ``fit_base`` makes."""

    def __init__(self, inputs: Inputs, settings: S) -> None:
        super().__init__()
        self.inputs = inputs
        self.settings = settings

    def forward(self, episodes: Episodes) -> Tensor:
        """Logits [B, Q, N]."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def loss(self, episodes: Episodes) -> Losses:
        """The objective of a batch of training episodes: the mean cross-entropy over the queries that exist."""
        value = cross_entropy(self(episodes), episodes.query_label)
        return Losses(value, {"ce": value})

    def fit_base(self, base: FeatureBank) -> None:
        """Closed-form statistics of the base classes, such as means or ridge maps; none by default.

        It is called once, before training or evaluation, for methods whose row says ``fits_base``. Results belong in
        buffers, so that a checkpoint holds them.
        """

    def fit_val(self, val: FeatureBank) -> None:
        """Choices for which clips of the val classes count too, after ``fit_base``; none by default.

        It is called once where the class split has val classes, for methods whose row says ``fits_val``.
        """

    def chosen(self) -> dict[str, Any]:
        """What ``fit_base`` and ``fit_val`` chose among settings, as JSON values; none by default."""
        return {}

    def notes(self) -> list[str]:
        """Sentences that a reader of the head's figures should see; none by default."""
        return []

    def shortcuts(self) -> Iterable[Shortcut]:
        """Quicker ways to the logits of ``forward`` for tests that withhold nothing; none by default.

        A law holds every shortcut of every method to ``forward``.
        """
        return ()


class ClipTrainedHead(Head[S]):
    """A head that is trained on batches of base clips instead of episodes (regime "batch" of its row)."""

    def batch_loss(self, clips: Mapping[str, Stream], label: Tensor, words: Tensor | None) -> Losses:
        """The objective of one batch of M base clips.

        clips: per modality a Stream [M, T, D]; label: int64 [M] over the base classes; words: [C, E] of all base
        classes, or None.
        """
        raise TypeError(f"{type(self).__name__} does not define batch_loss")


@runtime_checkable
class HasBranches(Protocol):
    """A head that has an opinion of each modality alone."""

    def branches(self, episodes: Episodes) -> dict[str, Tensor]:
        """Logits [B, Q, N] of each modality alone."""
        ...


@runtime_checkable
class HasSpace(Protocol):
    """A head that places clips and class words in one space, in which clips can be looked up."""

    def place(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor]:
        """Unit vectors [..., D] of clips by the modalities of ``streams``, and whether a clip has any, bool [...]."""
        ...

    def place_words(self, words: Tensor) -> Tensor:
        """Unit vectors [..., D] of class words [..., E]."""
        ...
