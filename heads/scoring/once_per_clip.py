"""Work that is done once for every clip of a test."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ...cache.bank import FeatureBank
from ...episodes.batch import Stream

KEPT_BYTES = 2 << 30  # of the mapped frames of a whole split that heads keep


KEPT_AT_ONCE = 256  # clips that are mapped at once


KEPT_NUMBERS = 1 << 25  # clips times width up to which heads keep projections of a whole split (134 MB each)


def in_parts(bank: FeatureBank) -> Iterator[Stream]:
    """All clips of a bank of one modality, some hundreds at a time."""
    (table,) = bank.tables.values()
    for rows in torch.arange(len(bank), device=bank.device).split(KEPT_AT_ONCE):
        yield table.gather(rows)
