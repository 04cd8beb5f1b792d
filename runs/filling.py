"""Filling the modalities that clips lack, with what base clips know of them; no other clip is asked.

mean: the mean of the base clips. neighbours: the mean of the nearest base clips, by the cosine of what the clip has
(borrowed from Zhi et al., arXiv 2403.09428, and RAGPT, AAAI 2025). linear: a ridge regression on what it has, the
closed form of cross-modal proxy tokens (TMLR 2025). zero: zeros that count as a clip. drop: nothing, and the head is
told. match: nothing, and each query is compared with supports that lack what it lacks. match-linear: the same, and what
a query and its supports then lack is estimated from what they share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..cache.table import Stream, TensorTable
from ..episodes.protocol import Protocol
from ..heads.parts.imputation import RidgeFit, nearest, ridge_fit
from ..heads.parts.steps import stretched
from .normalisation import FEWEST_CLASSES, halves_of

Rule = Literal["drop", "match", "match-linear", "mean", "neighbours", "linear", "zero"]
UNFILLED: tuple[Rule, ...] = ("drop", "match", "match-linear")
"""The rules that fill nothing when episodes are gathered."""
WITHOUT_BASE: tuple[Rule, ...] = ("drop", "match")
"""The rules that ask no base clip."""
READ_FEATURES: tuple[Rule, ...] = ("neighbours", "linear", "match-linear")
"""The rules that make what a clip lacks of the features that it has."""
SIDES = ("support", "query")
NEIGHBOURS = 5
KEPT_BYTES = (
    1 << 30
)  # Stand-ins of all clips that take more memory than this are made anew when they are asked for.
AT_ONCE = 1024  # Clips that are filled at once.


def withholds(protocol: Protocol, bank: FeatureBank) -> bool:
    """Whether the protocol takes one of several modalities from some clips."""
    if len(bank.tables) < 2:
        return False
    sides = (protocol.support_modalities, protocol.query_modalities)
    fewer = any(side is not None and not set(bank.tables) <= set(side) for side in sides)
    return fewer or any(loss.rate > 0 for loss in protocol.missing)


def lacks(protocol: Protocol, bank: FeatureBank, side: str) -> bool:
    """Whether some clip on this side of a test may lack one of the bank's modalities."""
    named = protocol.support_modalities if side == "support" else protocol.query_modalities
    fewer = named is not None and not set(bank.tables) <= set(named)
    lost = any(loss.rate > 0 and loss.side in (side, "both") for loss in protocol.missing)
    return fewer or lost or not all(table.all_present for table in bank.tables.values())


def gone(protocol: Protocol, bank: FeatureBank) -> bool:
    """Whether all that clips lack are modalities that no clip of either side has, and some modality is whole."""
    if not all(table.all_present for table in bank.tables.values()):
        return False
    rates = [{_lost_rate(protocol, name, side) for side in SIDES} for name in bank.tables]
    return all(each in ({0.0}, {1.0}) for each in rates) and {0.0} in rates and {1.0} in rates


def _lost_rate(protocol: Protocol, name: str, side: str) -> float:
    """The rate at which clips of a side lack a modality that all clips have."""
    named = protocol.support_modalities if side == "support" else protocol.query_modalities
    if named is not None and name not in named:
        return 1.0
    return max(
        (loss.rate for loss in protocol.missing if loss.modality == name and loss.side in (side, "both")),
        default=0.0,
    )


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What becomes of the modalities that supports and that queries lack."""

    support: Rule
    """The rule of the supports, for which the rules that fill nothing are one."""
    query: Rule
    """The rule of the queries."""

    def __str__(self) -> str:
        return self.query if self.support == self.query else f"{self.support} supports, {self.query} queries"


class BaseClips:
    """What the base clips know of each modality; found when it is first needed, and kept.

    base: the base clips, with the modalities that training clips carry.
    """

    def __init__(self, base: FeatureBank) -> None:
        self.base = base
        self._fits: dict[tuple[str, tuple[str, ...]], RidgeFit] = {}
        self._stand_ins: dict[tuple[str, int], _StandIns] = {}
        self._halves: list[tuple[FeatureBank, BaseClips]] | None = None

    def halves(self) -> list[tuple[FeatureBank, BaseClips]]:
        """Each half of the base classes with what the other half knows; none where there are too few classes."""
        if self._halves is None:
            self._halves = []
            if not self.base.multi and len(self.base.class_names) >= FEWEST_CLASSES:
                one, other = halves_of(self.base)
                self._halves = [(one, BaseClips(other)), (other, BaseClips(one))]
        return self._halves

    def over(self, bank: FeatureBank, pair: Pair) -> FeatureBank:
        """The bank, whose clips' absent modalities are filled when episodes are gathered."""
        rules = {side: getattr(pair, side) for side in SIDES}
        made = {rule: self._of(rule, bank) for rule in rules.values() if rule not in UNFILLED}
        return replace(bank, substitutes={side: made[rule] for side, rule in rules.items() if rule in made})

    def _of(self, rule: Rule, bank: FeatureBank) -> _StandIns:
        """The stand-ins for what the clips of a bank lack, which all questions about the bank share."""
        # The stand-ins hold the bank, so that no other one gets its identity while they are kept.
        return self._stand_ins.setdefault((rule, id(bank)), _StandIns(self, rule, bank))

    def mean(self, target: str) -> Tensor:
        """The mean feature [D] of a modality."""
        return self.base.tables[target].mean()

    def fit(self, target: str, sources: tuple[str, ...]) -> RidgeFit:
        """The regression of a modality's features on others', side by side, over the clips that have them all."""
        if (target, sources) not in self._fits:
            rows = self.complete((target, *sources))
            x, y = (_pooled(self.base, names, rows) for names in (sources, (target,)))
            self._fits[target, sources] = ridge_fit(x, y, self._group(rows))
        return self._fits[target, sources]

    def complete(self, modalities: Sequence[str]) -> Tensor:
        """The rows of the base clips that have all of these modalities, int64."""
        return torch.stack([self.base.tables[m].present for m in modalities]).all(0).nonzero()[:, 0]

    def _group(self, rows: Tensor) -> Tensor:
        """The class of each base clip, or its own number where clips have several labels."""
        return rows if self.base.multi else self.base.label[rows]


@dataclass
class _StandIns:
    """The stand-ins for the modalities that clips of ``bank`` lack."""

    known: BaseClips
    """What is known of the modalities."""
    rule: Rule
    """The way of filling."""
    bank: FeatureBank
    """The clips, with all that they have."""

    def __post_init__(self) -> None:
        self._made: dict[tuple[str, tuple[str, ...]], TensorTable] = {}

    def gather(self, target: str, sources: tuple[str, ...], rows: Tensor) -> Stream | None:
        """See ``Substitutes``; modalities that no base clip has serve neither as target nor as source."""
        base, table, rule = self.known.base, self.bank.tables[target], self.rule
        shared = tuple(m for m in sources if m in base.tables)
        if rule == "zero":
            return _constant(torch.zeros(table.dim, device=rows.device), table.steps, rows)
        if target not in base.tables or not len(self.known.complete((target, *shared))):
            return None
        if rule == "mean" or not shared:
            return _constant(self.known.mean(target), table.steps, rows)
        if len(self.bank) * table.steps * table.dim * 4 > KEPT_BYTES:
            return self._make(target, shared, rows)
        if (target, shared) not in self._made:
            self._made[target, shared] = self._all(target, shared)
        return self._made[target, shared].gather(rows)

    def _all(self, target: str, sources: tuple[str, ...]) -> TensorTable:
        """The stand-ins for a modality of every clip that has all of the sources; others are not read."""
        every = torch.arange(len(self.bank), device=self.bank.device)
        parts = [self._make(target, sources, rows) for rows in every.split(AT_ONCE)]
        x, length = torch.cat([p.x for p in parts]), torch.cat([p.length for p in parts])
        return TensorTable(x, length, length > 0)

    def _make(self, target: str, sources: tuple[str, ...], rows: Tensor) -> Stream:
        """The stand-ins for a modality of the clips at ``rows`` [n], a Stream [n, T, D]."""
        table = self.bank.tables[target]
        if self.rule == "linear":
            had = [stretched(self.bank.tables[m].gather(rows), table.steps).x for m in sources]
            x = self.known.fit(target, sources)(torch.cat(had, -1).float())
            return _whole(x, rows)
        memory = self.known.complete((target, *sources))
        parts = [self._neighbours(target, sources, part, memory) for part in rows.split(AT_ONCE)]
        return _whole(torch.cat(parts), rows)

    def _neighbours(self, target: str, sources: tuple[str, ...], rows: Tensor, memory: Tensor) -> Tensor:
        """The mean [n, T, D] of the nearest complete base clips, of which none is the clip itself."""
        base = self.known.base
        own = self.bank.clip_row[rows.cpu().numpy()][:, None] == base.clip_row[memory.cpu().numpy()][None]
        row, _ = nearest(
            _pooled(self.bank, sources, rows),
            _pooled(base, sources, memory),
            NEIGHBOURS,
            torch.from_numpy(own).to(rows.device),
        )
        near = stretched(base.tables[target].gather(memory[row]), self.bank.tables[target].steps)
        return near.x.float().mean(1)


def _pooled(bank: FeatureBank, modalities: Sequence[str], rows: Tensor) -> Tensor:
    """The features of some clips averaged over time, modality beside modality, [n, S]."""
    return torch.cat([bank.tables[m].gather(rows).pooled().float() for m in modalities], -1)


def _constant(x: Tensor, steps: int, rows: Tensor) -> Stream:
    """The vector x [D] at every step of every clip."""
    return _whole(x.expand(*rows.shape, steps, -1), rows)


def _whole(x: Tensor, rows: Tensor) -> Stream:
    """Features x [n, T, D] of clips all of whose steps are valid."""
    present = torch.ones(rows.shape, dtype=torch.bool, device=rows.device)
    return Stream(x, present, torch.full(rows.shape, x.shape[-2], dtype=torch.int64, device=rows.device))
