"""Trying a test out before training, so that what the test lacks is said at once and not after the training."""

from __future__ import annotations

import numpy as np

from ..cache.bank import FeatureBank
from ..heads.head import Head
from .banks import Banks
from .filling_choice import provisional
from .generalised import Sides
from .measure import measure, whole_split
from .reliability import reliability as measured_reliability
from .spec import RunSpec

FEW = 4  # A whole split is tried out on this many of its clips.


def try_out(head: Head, banks: Banks, spec: RunSpec, *, reliability: bool = False) -> None:
    """Measure the untrained head on one episode of the test, or on a few clips where a whole split is the test.

    reliability: whether the reliability of modalities will be measured, too.
    Raises what the test itself would raise: TooFew for too few clips or classes, UsageError for what has no meaning or
    lacks words, supports or modalities.
    """
    protocol, whole = spec.protocol, whole_split(spec.protocol)
    test, sides = provisional(head, _part(banks.test, whole=whole), spec, banks), None
    if protocol.generalised:
        sides = Sides(_part(banks.test, whole=whole), _part(banks.seen, whole=whole), banks.base)
    measure(
        test.head,
        test.bank,
        protocol,
        1,
        unlabelled=banks.unlabelled,
        sides=sides,
    )
    if reliability:
        measured_reliability(head, banks.test, protocol, 1)


def _part(bank: FeatureBank, *, whole: bool) -> FeatureBank:
    """The bank, or a few of its clips where whole splits are classified."""
    return bank.rows(np.arange(min(FEW, len(bank)))) if whole else bank
