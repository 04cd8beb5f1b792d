"""Banks that the runs of one process share: each stream of a split is read and prepared once, whoever asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..cache.bank import FeatureBank, choose_streams
from ..cache.schema import dataset_folder
from ..cache.table import Table
from .normalisation import prepared


class SharedBanks:
    """A memory of banks and of prepared tables; processes that are forked afterwards share it without a copy."""

    def __init__(self) -> None:
        self._banks: dict[tuple[Any, ...], FeatureBank] = {}
        self._tables: dict[tuple[Any, ...], Table] = {}
        self._prepared: dict[tuple[Any, ...], tuple[Table, Table]] = {}

    def load(
        self,
        cache: Path,
        streams: Sequence[str] | None,
        split: str,
        *,
        pooled: bool,
        dataset: str,
        **choice: Any,
    ) -> FeatureBank:
        """The bank that ``FeatureBank.load`` gives, with features averaged over time where ``pooled``.

        Every stream is loaded by itself, so that selections of streams share their tables. Raises as
        ``FeatureBank.load``.
        """
        chosen = choose_streams(dataset_folder(cache, dataset), streams)
        parts = {
            key: self._one(cache, str(name), split, pooled=pooled, dataset=dataset, **choice)
            for key, name in chosen.items()
        }
        first = next(iter(parts.values()))
        tables = {key: table for key, part in parts.items() for table in part.tables.values()}
        return replace(first, streams=chosen, tables=tables)

    def prepared(
        self,
        bank: FeatureBank,
        how: str,
        *,
        pools: bool,
        means: Mapping[str, Tensor] | None,
        means_of: FeatureBank | None,
    ) -> FeatureBank:
        """The bank that ``prepared`` gives; means_of: the bank whose means are subtracted."""
        tables = {}
        for key, table in bank.tables.items():
            base = None if means_of is None else means_of.tables[key]
            memo = (id(table), how, pools, id(base))
            if memo not in self._prepared:
                made = prepared(bank.select([key]), how, pools=pools, means=means)
                self._prepared[memo] = (made.tables[key], table)
            tables[key] = self._prepared[memo][0]
        return replace(bank, tables=tables)

    def _one(self, cache: Path, stream: str, split: str, *, pooled: bool, **choice: Any) -> FeatureBank:
        """The bank of one stream."""
        key = (cache, stream, split, pooled, *sorted(choice.items(), key=lambda item: item[0]))
        if key not in self._banks:
            bank = FeatureBank.load(cache, [stream], split, **choice)
            bank = bank.pooled() if pooled else bank
            # Class words do not change features, so that banks with and without them share tables.
            same = tuple(
                part
                for part in key
                if not (isinstance(part, tuple) and part[0] in ("words", "words_of", "relations"))
            )
            (name, table), *_ = bank.tables.items()
            self._banks[key] = replace(bank, tables={name: self._tables.setdefault(same, table)})
        return self._banks[key]
