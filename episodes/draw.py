"""The choice of the sampler that fits a bank: single-label episodes, or the binary tasks of multi-label ones."""

from __future__ import annotations

from ..cache.bank import FeatureBank
from .binary import BinarySampler
from .protocol import Protocol
from .sampler import Sampler

AnySampler = Sampler | BinarySampler


def sampler_for(bank: FeatureBank, protocol: Protocol, unlabelled: int = 0) -> AnySampler:
    """The sampler of ``protocol`` over ``bank``: a BinarySampler for a multi-hot bank, a Sampler otherwise.

    unlabelled: the number of clips without labels. Raises TooFew where the bank cannot serve the protocol, UsageError
    for a protocol without a multi-label form.
    """
    return BinarySampler(bank, protocol) if bank.multi else Sampler(bank, protocol, unlabelled)
