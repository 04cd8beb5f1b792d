"""A test as one value: which clips, under which protocol, how many episodes; and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from ...cache.bank import FeatureBank
from ...cache.table import Table, TensorTable
from ...episodes.protocol import Protocol, bounds


@dataclass(frozen=True, kw_only=True)
class EpisodeTest:
    """``episodes`` episodes of ``protocol`` over the clips of ``bank``."""

    bank: FeatureBank
    protocol: Protocol
    episodes: int
    unlabelled: FeatureBank | None = None

    @cached_property
    def withholds_nothing(self) -> bool:
        """Whether every drawn clip comes with what the bank holds of every modality, and no other clip does."""
        protocol = self.protocol
        chosen = protocol.support_modalities is not None or protocol.query_modalities is not None
        changed = chosen or protocol.missing or protocol.noisy
        if changed or protocol.unlabelled or self.unlabelled is not None:
            return False
        return all(table.all_present for table in self.bank.tables.values())

    @cached_property
    def complete(self) -> bool:
        """Whether nothing is withheld, every class has a support and every query exists, with one label each."""
        return self.shows_every_query and self.shots[0] > 0

    @cached_property
    def shows_every_query(self) -> bool:
        """Whether nothing is withheld and every query exists, with one label each; classes may lack supports."""
        protocol = self.protocol
        filled = not protocol.uneven_queries and protocol.small_classes != "short"
        return self.withholds_nothing and filled and not self.bank.multi

    @cached_property
    def ways(self) -> int:
        """The most classes of an episode."""
        return bounds(self.protocol.n_way)[1] or len(self.bank.class_names)

    @cached_property
    def shots(self) -> tuple[int, int]:
        """The fewest and the most supports of a class."""
        return bounds(self.protocol.k_shot)

    @cached_property
    def clips_drawn(self) -> int:
        """How many clips the episodes draw, counting a clip again whenever it is drawn again."""
        return self.episodes * self.ways * (self.shots[0] + self.protocol.n_query)

    @cached_property
    def comparisons(self) -> int:
        """How many comparisons of a query with a class the episodes ask for."""
        return self.episodes * self.ways**2 * self.protocol.n_query

    @cached_property
    def plain_table(self) -> TensorTable | None:
        """The only table of a bank of pooled features in memory; None where there is more to the bank."""
        table = next(iter(self.bank.tables.values())) if len(self.bank.tables) == 1 else None
        return table if isinstance(table, TensorTable) and table.steps == 1 else None

    def over(self, tables: Mapping[str, Table]) -> EpisodeTest:
        """The same episodes of the same clips with other features."""
        streams = {
            m: self.bank.streams.get(m, next(iter(self.bank.streams.values()))) for m in tables
        }  # a fused table keeps the name of one of its streams
        return replace(self, bank=replace(self.bank, tables=dict(tables), streams=streams))
