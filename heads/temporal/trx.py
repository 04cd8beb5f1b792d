"""TRX: Temporal-Relational CrossTransformers (Perrett, Masullo, Burghardt, Mirmehdi and Damen, CVPR 2021).

A clip is the set of its ordered frame tuples. Each tuple of the query attends to all tuples of all supports of a class
at once, and what it gathers there is that class's prototype for this tuple. The class nearest on average over the
query's tuples wins; several tuple lengths (cardinalities) are averaged. Inductive.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from ...episodes.batch import Stream
from ...errors import UsageError
from ..encoding import EncodingHead
from ..head import Inputs
from ..parts.context import TaskContext
from ..parts.positions import sinusoid
from ..parts.steps import at_least, unit_gain
from ..parts.tuple_attention import TupleAttention, Tuples
from ..scoring.pairs import FromPairs
from ..scoring.shortcut import Shortcut
from ..settings import Count, NonNegative, Positive, Rate, Recipe, Settings


@dataclass(frozen=True)
class TupleSettings(Settings):
    """What every head that compares tuples of frames lets its user choose."""

    cardinalities: tuple[Count, ...] = (2, 3)
    """The lengths of the tuples; logits are averaged over them."""
    width: Count = 1152
    """The width of keys and values."""
    position: NonNegative = 0.1
    """The weight of the position code that is added to every frame."""
    dropout: Rate = 0.1
    """The dropout of the frames."""
    level: bool = True
    """Scale each clip so that its mean step has unit length, as pooled features have: otherwise clips whose steps
    differ much are short, and distances say more about that than about content."""
    rescale: bool = True
    """Multiply unit features by sqrt(D), the scale that the position code was chosen for."""
    scale: Positive = 10.0
    """The factor of the logits, which are divided by D again after a rescale (1 in the paper)."""
    sharpness: NonNegative = 0.7
    """Where the gain of the keys' normalisation begins; 1 in the paper. Near 0 attention begins uniform and the
    untrained head is close to ProtoNet."""
    memory: Count = 64
    """MiB that the tuple pairs of one pass may take; above it queries are scored in parts."""


@dataclass(frozen=True)
class TRXSettings(TupleSettings):
    """TRX's settings."""

    orthogonal: bool = True
    """Values begin as an isometry (or a projection); false: at random, as torch begins its layers."""


T = TypeVar("T", bound=TupleSettings)


class TupleHead(EncodingHead[T, "list[Tuples]", "list[Tuples]"]):
    """TRX and what is built on it: logits are ``factor`` times those of ``tuples`` over clips as they are ``seen``.

    gain: what unit features are multiplied by.
    """

    recipe = Recipe(
        steps=120,
        tasks=4,
        query=5,
        rate=1e-4,
        evaluate_every=30,
        evaluate_episodes=100,
        patience=3,
        mix=0.5,
        every_core=True,
    )
    gain: float
    tuples: CrossTransformers

    def seen(self, clips: Stream) -> Stream:
        """Clips as the tuples take them, but for the position code."""
        return self.levelled(clips)

    def levelled(self, clips: Stream) -> Stream:
        """Clips in the weights' dtype, times ``gain``, each over the length of its mean step if ``level`` is set."""
        clips = clips.to(clips.x.device, self.tuples.dtype)
        x = clips.x * self.gain if self.gain != 1.0 else clips.x
        if self.settings.level:
            x = x / clips.pooled().norm(dim=-1)[..., None, None].clamp(min=1e-6)
        return Stream(x, clips.present, clips.length)

    @property
    def factor(self) -> float:
        """The scale of the logits."""
        return self.settings.scale / self.gain**2

    def encode(self, clips: Stream) -> list[Tuples]:
        """The tuples of clips [..., T, D], an entry a cardinality."""
        return self.tuples.encode(self.seen(clips))

    def compare(self, support: list[Tuples], query: list[Tuples], context: TaskContext) -> Tensor:
        """Absent supports have no valid tuple, so they need not be left out."""
        return self.factor * self.tuples.compare(support, query)

    def shortcuts(self) -> Iterable[Shortcut]:
        """Frames are mapped once; with one shot each pair of clips is scored once."""
        return (self.once_per_clip(), FromPairs(head=self, once_per_clip=self.once_per_clip()))


class TRX(TupleHead[TRXSettings]):
    Settings = TRXSettings

    def __init__(self, inputs: Inputs, settings: TRXSettings) -> None:
        super().__init__(inputs, settings)
        dim = inputs.one()[2]
        self.gain = unit_gain(dim, rescale=settings.rescale)
        self.tuples = CrossTransformers(dim, settings)
        self.tuples.begin(settings.sharpness, orthogonal=settings.orthogonal)


class CrossTransformers(nn.Module):
    """The mean over cardinalities of one TupleAttention each. Raises UsageError where there is no cardinality."""

    def __init__(self, dim: int, settings: TupleSettings) -> None:
        super().__init__()
        if not settings.cardinalities:
            raise UsageError("cardinalities must name at least one tuple length.")
        self.attentions = [TupleAttention(dim, size, settings.width) for size in settings.cardinalities]
        self.each = nn.ModuleList(self.attentions)
        self.longest = max(settings.cardinalities)
        self.position, self.memory = settings.position, settings.memory
        self.dropout = nn.Dropout(settings.dropout)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    def begin(self, sharpness: float, *, orthogonal: bool) -> None:
        """Sets where training starts: the gain of the keys' normalisation, and values as an isometry."""
        for attention in self.attentions:
            nn.init.constant_(attention.norm.weight, sharpness)
            if orthogonal:
                nn.init.orthogonal_(attention.value.weight)

    def forward(self, support: Stream, query: Stream) -> Tensor:
        """Logits [B, Q, N] of support [B, N, K, T, D] and query [B, Q, T, D]."""
        return self.compare(self.encode(support), self.encode(query))

    def encode(self, clips: Stream) -> list[Tuples]:
        """The tuples of clips [..., T, D], an entry a cardinality; clips shorter than a tuple hold their last step."""
        clips = at_least(clips, self.longest)
        code = self.position * sinusoid(clips.x.shape[-2], clips.x)
        placed = Stream(self.dropout(clips.x + code), clips.present, clips.length)
        return [attention.tuples(placed) for attention in self.attentions]

    def compare(self, support: list[Tuples], query: list[Tuples]) -> Tensor:
        """Logits [B, Q, N] of the tuples of supports [B, N, K] and of queries [B, Q]."""
        return torch.stack(self.by_cardinality(support, query)).mean(0)

    def by_cardinality(self, support: list[Tuples], query: list[Tuples]) -> list[Tensor]:
        """Logits [B, Q, N] of each cardinality alone."""

        def one(attention: TupleAttention, s: Tuples, q: Tuples) -> Tensor:
            parts = self._parts(s, q.valid.shape[1])
            return torch.cat([attention(s, Tuples(*(t[:, part] for t in q))) for part in parts], 1)

        return [one(*each) for each in zip(self.attentions, support, query)]

    def _parts(self, support: Tuples, queries: int) -> list[slice]:
        """Which queries of every task each pass takes against supports [B, N, K]; of even sizes."""
        clips, tuples = support.valid.shape[:-1].numel(), support.valid.shape[-1]
        # What one query takes in bytes: its attention, the logits of that, and their parts.
        query_bytes = 3 * 4 * tuples * tuples * max(clips, 1)
        most = max(1, (self.memory << 20) // query_bytes)
        edges = torch.linspace(0, queries, max(1, -(-queries // most)) + 1).round().int().tolist()
        return [slice(first, last) for first, last in pairwise(edges)]
