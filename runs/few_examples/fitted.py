"""A head with its supports: what decides the clips of a user who has some examples of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...cache.bank import FeatureBank
from ...episodes.batch import Episodes
from ...episodes.gather import materialise
from ...episodes.protocol import Protocol
from ...episodes.sampler import EpisodeIndex
from ...heads.build import build_head, inputs_of
from ...heads.head import Head
from ...heads.registry import Method, find
from ..normalisation import prepared
from ..only_numbers import only_numbers
from .examples import Examples, with_steps
from .leave_out import left_out_logits, support_rows

_QUERIES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class HeadChoice:
    """Which head reads which modalities, and how features are scaled before."""

    method: str
    """A method of `fsmm methods`."""
    fusion: str | None = None
    """How a method of one modality takes several: ec, ea or lf."""
    modalities: tuple[str, ...]
    """The modalities that the head reads."""
    normalise: str = "l2"
    """How features are scaled: l2, centre-l2 (by the base set's mean), per-step or none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The key=value of the head; train.KEY is its recipe's."""

    @property
    def row(self) -> Method:
        """The method's row of the table. Raises UsageError for an unknown name."""
        return find(self.method)[0]

    @property
    def pools(self) -> bool:
        """Whether the head is handed features that are averaged over time."""
        return not self.row.reads_time

    def __str__(self) -> str:
        several = len(self.modalities) > 1 and self.row.modalities == "one"
        name = f"{self.method}-{self.fusion}" if several and self.fusion else self.method
        scaled = "" if self.normalise == "l2" else f", {self.normalise}"
        return f"{name} on {' and '.join(self.modalities)}{scaled}"


@dataclass(kw_only=True)
class FittedHead:
    """A head, the labelled clips that are its supports, and what its features are centred by."""

    choice: HeadChoice
    """The head's name, modalities and scaling."""
    head: Head[Any]
    """The head itself."""
    supports: Examples
    """The clips as they were given, in all modalities of the head."""
    label: Tensor
    """The classes of the supports, int64 [n] in 0..N-1."""
    class_names: Sequence[str]
    """The names of the N classes."""
    means: Mapping[str, Tensor] | None = None
    """The mean feature [D] of the base classes by modality, for centre-l2."""
    words: Tensor | None = None
    """The vectors [N, E] of class words, for a head that reads them."""

    def __post_init__(self) -> None:
        self.head.eval()
        self._bank = self._read(self.supports, self.label)
        self._support = self._supports_of(self._bank)

    @classmethod
    def untrained(
        cls,
        choice: HeadChoice,
        supports: Examples,
        label: Tensor,
        class_names: Sequence[str],
        *,
        means: Mapping[str, Tensor] | None = None,
        words: Tensor | None = None,
    ) -> FittedHead:
        """The head as it is built. Raises UsageError where it cannot take these examples."""
        own = supports.select(choice.modalities)
        raw = own.bank(label, class_names, words)
        read = prepared(raw, choice.normalise, pools=choice.pools, means=means)
        inputs = inputs_of(read, way=len(class_names))
        settings = {k: v for k, v in choice.settings.items() if not k.startswith("train.")}
        head = build_head(choice.method, inputs, settings, choice.fusion)
        return cls(
            choice=choice,
            head=head,
            supports=own,
            label=label,
            class_names=class_names,
            means=means,
            words=words,
        )

    @property
    def bank(self) -> FeatureBank:
        """The supports as the head reads them."""
        return self._bank

    @torch.no_grad()
    def logits(self, queries: Examples) -> Tensor:
        """The logits [q, N] of clips; equal ones for a clip that has none of the head's modalities."""
        own = queries.select(self.choice.modalities)
        bank = self._read(own, torch.zeros(len(own), dtype=torch.int64))
        steps = {name: table.steps for name, table in self._bank.tables.items()}
        found = [self._decided(bank, rows, steps) for rows in torch.arange(len(own)).split(_QUERIES_AT_ONCE)]
        return torch.cat(found) if found else torch.zeros(0, len(self.class_names))

    def left_out(self) -> tuple[Tensor, Tensor]:
        """The logits [m, N] of the supports that can be left out, each decided by others, and their rows [m]."""
        return left_out_logits(self.head, self._bank)

    def _decided(self, bank: FeatureBank, rows: Tensor, steps: Mapping[str, int]) -> Tensor:
        query = {}
        for name, table in bank.tables.items():
            query[name] = with_steps(table.gather(rows), steps[name])[None]
        logits: Tensor = self.head(
            Episodes(
                support=self._support.support,
                query=query,
                query_label=torch.zeros(1, len(rows), dtype=torch.int64),
                class_id=self._support.class_id,
                words=self._support.words,
            )
        )
        return only_numbers(logits[0].float())

    def _read(self, clips: Examples, label: Tensor) -> FeatureBank:
        """Clips as the head reads them."""
        raw = clips.bank(label, self.class_names, self.words)
        return prepared(raw, self.choice.normalise, pools=self.choice.pools, means=self.means)

    def _supports_of(self, bank: FeatureBank) -> Episodes:
        """One task without a query, whose supports are all clips of a bank."""
        supports = support_rows(bank.label, len(self.class_names))[None]
        index = EpisodeIndex(
            episode=torch.zeros(1, dtype=torch.int64),
            classes=torch.arange(len(self.class_names))[None],
            support=supports,
            query=torch.zeros(1, 0, dtype=torch.int64),
            query_label=torch.zeros(1, 0, dtype=torch.int64),
            unlabelled=torch.zeros(1, 0, dtype=torch.int64),
        )
        return materialise(bank, index, Protocol())


def supports_of(choice: HeadChoice, head: Head[Any], examples: Examples) -> Examples:
    """Examples as supports of a head: its modalities and, where it reads steps, as many as it was built for."""
    own = examples.select(choice.modalities)
    if choice.pools:
        return own
    return own.fitted_to({name: steps for name, (steps, _) in head.inputs.streams.items()})
