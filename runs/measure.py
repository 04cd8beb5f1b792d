"""Measuring a head on episodes, on multi-label episodes, or zero-shot on a whole split, as its protocol demands."""

from __future__ import annotations

from collections.abc import Callable

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol
from ..errors import UsageError
from ..heads.head import Head
from .evaluate import evaluate
from .extent import Extent
from .multi_label import evaluate_multi_label
from .result import Result
from .zero_shot import generalised_zero_shot, zero_shot


def whole_split(protocol: Protocol) -> bool:
    """Whether the protocol is zero-shot over all classes of a split, so that every clip is classified once."""
    return protocol.k_shot == 0 and protocol.n_way == 0


def check_meaning(protocol: Protocol, bank: FeatureBank) -> None:
    """Raise UsageError for a protocol whose values have no meaning together on these clips."""
    if protocol.generalised and not whole_split(protocol):
        raise UsageError(
            "Generalised zero-shot classifies whole splits; use --n-way 0 --k-shot 0 with --generalised."
        )
    changed = protocol.missing or protocol.noisy or protocol.cross_modal
    if not bank.multi and whole_split(protocol) and changed:
        raise UsageError(
            "Zero-shot over whole splits takes clips as they are; choose --modalities, or use --n-way 5 --k-shot 0 "
            "with --missing, --noisy or --query-modalities."
        )


def measure(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: Extent,
    *,
    unlabelled: FeatureBank | None = None,
    seen: FeatureBank | None = None,
    val: FeatureBank | None = None,
    progress: Callable[[int], None] | None = None,
    transductive: bool = True,
) -> Result:
    """Measure ``head`` on ``bank`` under the protocol.

    episodes: their number, or Auto; a whole split is classified at once, whatever it is.
    unlabelled: the bank of the clips that episodes may give without labels.
    seen, val: the banks of generalised zero-shot (see ``generalised_zero_shot``).
    progress: called with the number of episodes just scored.
    transductive: whether the head may decide the queries of an episode together, on which intervals depend.
    Raises UsageError for combinations that have no meaning, TooFew where the bank cannot serve the protocol.
    """
    check_meaning(protocol, bank)
    if bank.multi:
        return evaluate_multi_label(head, bank, protocol, episodes, progress=progress)
    if whole_split(protocol):
        if protocol.generalised and seen is not None:
            return generalised_zero_shot(head, bank, seen, val)
        return zero_shot(head, bank)
    return evaluate(
        head,
        bank,
        protocol,
        episodes,
        unlabelled=unlabelled,
        progress=progress,
        transductive=transductive,
    )
