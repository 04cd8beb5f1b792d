"""The sampler that fits a bank: single-label episodes, or the binary tasks of multi-label ones."""

from __future__ import annotations

from ..cache.bank import FeatureBank
from .binary import BinarySampler
from .protocol import Protocol
from .sampler import Sampler

AnySampler = Sampler | BinarySampler


def sampler_for(bank: FeatureBank, protocol: Protocol, unlabelled: int = 0) -> AnySampler:
    """Raises TooFew or UsageError as the samplers do."""
    return BinarySampler(bank, protocol) if bank.multi else Sampler(bank, protocol, unlabelled)
