"""The choice of the sampler that fits a bank: single-label episodes, or the binary tasks of multi-label ones."""

from __future__ import annotations

import numpy as np

from ..cache.bank import FeatureBank
from .binary import BinarySampler
from .groups import sides
from .protocol import Protocol
from .sampler import Sampler, supply_of

AnySampler = Sampler | BinarySampler


def sampler_for(bank: FeatureBank, protocol: Protocol, unlabelled: int = 0) -> AnySampler:
    """The sampler of ``protocol`` over ``bank``: a BinarySampler for a multi-hot bank, a Sampler otherwise.

    unlabelled: the number of clips without labels. Raises TooFew where the bank cannot serve the protocol, UsageError
    for a protocol without a multi-label form.
    """
    return BinarySampler(bank, protocol) if bank.multi else Sampler(bank, protocol, unlabelled)


def query_room(bank: FeatureBank, protocol: Protocol, shots: int) -> np.ndarray:
    """The most queries that each class has beside ``shots`` supports under the protocol's rules, int64 [C].

    It is below 0 for a class with too few clips for its supports.
    """
    if not bank.multi:
        return supply_of(bank, protocol).room(shots)
    if protocol.cross_group:
        return np.asarray(bank.label.cpu().numpy()[sides(bank, protocol)[1]].sum(0, dtype=np.int64))
    return bank.counts() - shots
