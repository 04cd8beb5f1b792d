"""Measuring a head on episodes, on multi-label episodes, or zero-shot on a whole split, as its protocol demands."""

from __future__ import annotations

from collections.abc import Callable

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol, bounds
from ..errors import UsageError
from ..heads.head import Head
from .evaluate import evaluate
from .extent import Extent, planned
from .generalised import MOST_DRAWS, Sides, generalised
from .learned_gate import LearnedGate
from .multi_label import evaluate_multi_label
from .result import Result
from .retrieval import retrieve
from .seen_unseen import Choice, Rule
from .zero_shot import zero_shot


def whole_split(protocol: Protocol) -> bool:
    """Whether the protocol asks about a split as a whole: clips are looked up, or classified among all classes."""
    return protocol.retrieval or (protocol.k_shot == 0 and protocol.n_way == 0)


def is_generalised(protocol: Protocol) -> bool:
    """Whether all classes of a split and all base classes compete, with supports or without."""
    return protocol.generalised and protocol.n_way == 0


def draws_of(protocol: Protocol, episodes: Extent) -> Extent:
    """The episodes that a test draws of those that were asked for: a generalised test draws MOST_DRAWS at most."""
    return min(planned(episodes), MOST_DRAWS) if is_generalised(protocol) else episodes


def check_meaning(protocol: Protocol, bank: FeatureBank) -> None:
    """Raise UsageError for a protocol whose values have no meaning together on these clips."""
    changed = protocol.missing or protocol.noisy or protocol.cross_modal
    if protocol.retrieval and (changed or protocol.generalised):
        raise UsageError(
            "Retrieval takes clips and classes as they are; leave out --missing, --noisy, --generalised and the "
            "modalities of supports and queries."
        )
    if protocol.generalised and not is_generalised(protocol):
        raise UsageError(
            "Generalised tests classify whole splits; use --n-way 0 with --generalised, and --k-shot 0 for zero-shot."
        )
    if protocol.generalised and (bank.multi or protocol.rules_groups or not isinstance(protocol.k_shot, int)):
        raise UsageError(
            "Generalised tests take clips with one label, one number of supports, and no rule about groups."
        )
    if not bank.multi and (whole_split(protocol) or is_generalised(protocol)) and changed:
        raise UsageError(
            "A test over whole splits takes clips as they are; choose --modalities, or use --n-way 5 --k-shot 0 with "
            "--missing, --noisy or --query-modalities."
        )


def measure(
    head: Head,
    bank: FeatureBank,
    protocol: Protocol,
    episodes: Extent,
    *,
    unlabelled: FeatureBank | None = None,
    sides: Sides | None = None,
    choice: Choice | None = None,
    gate: LearnedGate | None = None,
    progress: Callable[[int], None] | None = None,
    transductive: bool = True,
) -> Result:
    """Measure ``head`` on ``bank`` under the protocol.

    episodes: their number, or Auto; a whole split is classified at once, whatever it is.
    unlabelled: the bank of the clips that episodes may give without labels.
    sides, choice, gate: the clips of a generalised test, what decides between seen and unseen classes (None: no bias),
        and the learned gate, if that does.
    progress: called with the number of episodes just scored.
    transductive: whether the head may decide the queries of an episode together, on which intervals depend.
    Raises UsageError for combinations that have no meaning, TooFew where the bank cannot serve the protocol.
    """
    check_meaning(protocol, bank)
    if protocol.retrieval:
        return retrieve(head, bank)
    if bank.multi:
        return evaluate_multi_label(head, bank, protocol, episodes, progress=progress)
    if sides is not None:
        shots = bounds(protocol.k_shot)[1]
        return generalised(
            head,
            sides,
            choice or Choice(rule=Rule()),
            shots=shots,
            draws=planned(draws_of(protocol, episodes)),
            seed=protocol.seed,
            gate=gate,
            progress=progress if shots else None,
        )
    if whole_split(protocol):
        return zero_shot(head, bank, transductive=transductive)
    return evaluate(
        head,
        bank,
        protocol,
        episodes,
        unlabelled=unlabelled,
        progress=progress,
        transductive=transductive,
    )
