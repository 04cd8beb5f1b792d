"""What a run is: one frozen value that is stored with every result and names its default folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..episodes.protocol import Missing, Protocol
from .store import digest

# Called with ("train" or "evaluate", units done, units in all, figures such as the loss).
Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class RunSpec:
    """One head under one protocol with one seed.

    streams: what is loaded (None: every modality's only stream). modalities: which of them the head is built for.
    train_modalities, train_missing: what training episodes carry (None: all of ``modalities``) and lose.
    settings: ``key=value`` of the head; ``train.*`` of its recipe, ``fusion.*`` of the wrapper.
    words: a word stream, "auto" or None. normalise: none | l2 | centre-l2.
    """

    method: str
    protocol: Protocol = field(default_factory=Protocol)
    fusion: str | None = None
    streams: tuple[str, ...] | None = None
    modalities: tuple[str, ...] | None = None
    train_modalities: tuple[str, ...] | None = None
    train_missing: tuple[Missing, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    words: str | None = "auto"
    normalise: str = "l2"
    dtype: str = "float32"
    train_seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def digest(self) -> str:
        return digest(self.to_dict())

    def training_identity(self) -> dict[str, Any]:
        """What of this a trained head depends on: everything but the test split and its sampling."""
        values = self.to_dict()
        for name in ("split", "n_query", "dirichlet", "small_classes", "clip_split", "seed"):
            values["protocol"].pop(name)
        return values
