"""The choice of what becomes of modalities that clips lack, by base and val classes under the run's own protocol.

Every candidate answers the same episodes of classes that are not those of the test, and of which its fits know nothing:
each half of the base classes, filled from the other half, and the val classes, filled from all base classes. A head
that was trained on base classes is asked about val classes alone where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.protocol import Protocol, TooFew
from ..errors import NoClips, UsageError
from ..heads.head import Head
from ..heads.multimodal.matched import MatchedHead
from .banks import Banks, HeadBanks
from .filling import BaseClips, Pair, Rule, lacks, withholds
from .measure import measure
from .result import Result
from .spec import RunSpec
from .tasks import validation_protocol

EPISODES = 200  # Each candidate answers so many episodes of each part.
VERSION = 3
"""A number that grows when the choice changes, so that studies do runs again that depend on it."""
RULES: tuple[Rule, ...] = ("linear", "neighbours", "mean", "drop", "zero")


@dataclass(frozen=True, kw_only=True)
class FillingChoice:
    """What becomes of modalities that clips lack, and why."""

    support: Rule
    """The rule of supports."""
    query: Rule
    """The rule of queries."""
    scores: dict[str, float]
    """The accuracy of each candidate on base and val classes, in 0..1; empty where nothing was chosen."""
    parts: list[str]
    """The names of the classes that were asked: base, val."""
    note: str = ""
    """Why nothing could be chosen; "" where it was."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A head and the clips it is asked about, with what clips lack filled in."""

    head: Head[Any]
    """The head, which may be asked about each query by what the query has."""
    bank: FeatureBank
    """The clips."""
    source: FeatureBank | None = None
    """The clips without what is filled in; None where they are ``bank`` itself."""
    pair: Pair | None = None
    """The rules by which the clips are filled and the head is asked; None where nothing is lacking."""
    choice: FillingChoice | None = None
    """What was chosen, or None where nothing is lacking or the run says itself what becomes of it."""

    @property
    def clips(self) -> FeatureBank:
        """The clips without what is filled in."""
        return self.bank if self.source is None else self.source


Ask = Callable[[Filled, Protocol, int], Result]
"""Measures a head on so many episodes of a protocol."""


def filled_test(
    head: Head[Any],
    spec: RunSpec,
    banks: Banks,
    *,
    trained: bool,
    known: BaseClips | None = None,
    ask: Ask | None = None,
) -> Filled:
    """The head and the test clips of a run, with what clips lack filled as the run, or base and val classes, say.

    trained: whether the head was trained on base classes. known: the base clips of ``known_base``, which runs on the
    same clips may share; None has them found. ask: measures the candidates (see ``choose``). Raises UsageError where
    there are no base clips to fill from.
    """
    bank, rule = banks.test, spec.when_missing
    if rule != "auto":
        return filled(head, bank, Pair(support=rule, query=rule), _known(spec, banks, rule))
    if not withholds(spec.protocol, bank):
        return Filled(head=head, bank=bank)
    try:
        known = known or known_base(spec, banks)
    except NoClips as error:
        note = f"what clips lack is dropped, for nothing could be chosen: {error}"
        nothing = FillingChoice(support="drop", query="drop", scores={}, parts=[], note=note)
        return Filled(head=head, bank=bank, choice=nothing)
    choice = choose(head, spec.protocol, known=known, val=banks.val, test=bank, trained=trained, ask=ask)
    made = filled(head, bank, Pair(support=choice.support, query=choice.query), known)
    return replace(made, choice=choice)


def known_base(spec: RunSpec, banks: HeadBanks) -> BaseClips:
    """What the base clips of a run know of what clips lack. Raises NoClips where there are none."""
    return BaseClips(_base(spec, banks))


def provisional(head: Head[Any], bank: FeatureBank, spec: RunSpec, banks: HeadBanks) -> Filled:
    """The head and a bank as a run measures them before anything was chosen: in validation, and for trying out.

    Where a choice will be made, what the protocol takes from whole sides is filled linearly meanwhile, and the rest is
    dropped, so that any head can answer. Raises UsageError where there are no base clips to fill from.
    """
    rule: Rule = "linear" if spec.protocol.cross_modal else "drop"
    if spec.when_missing != "auto":
        rule = spec.when_missing
    if len(bank.tables) < 2 or rule == "drop":
        return Filled(head=head, bank=bank)
    return filled(head, bank, Pair(support=rule, query=rule), _known(spec, banks, rule))


def filled(head: Head[Any], bank: FeatureBank, pair: Pair, known: BaseClips | None) -> Filled:
    """The head and the bank under a pair of rules; known: the base clips, None where the rules need none."""
    asked = MatchedHead(head) if pair.query == "match" and len(bank.tables) > 1 else head
    return Filled(head=asked, bank=bank if known is None else known.over(bank, pair), source=bank, pair=pair)


def choose(
    head: Head[Any],
    protocol: Protocol,
    *,
    known: BaseClips,
    val: FeatureBank | None,
    test: FeatureBank,
    trained: bool,
    ask: Ask | None = None,
) -> FillingChoice:
    """What base and val classes say (see ``best_of``); drop where none of them can serve the protocol.

    Classes of the test are never asked. ask: measures each candidate; None measures it by itself.
    """
    pairs = candidates(protocol, test)
    found: list[tuple[str, np.ndarray]] = []
    for name, bank, source in _parts(known, val, trained=trained):
        if protocol.split in (name, "all"):
            continue
        try:
            asked = _accuracies(head, protocol, pairs=pairs, bank=bank, known=source, ask=ask or _ask)
        except TooFew:
            continue
        if np.isfinite(asked).any():
            found.append((name, asked))
    if not found:
        note = (
            "what clips lack is dropped, for neither base nor val classes can serve the task to choose by it"
        )
        return FillingChoice(support="drop", query="drop", scores={}, parts=[], note=note)
    accuracies = [asked for _, asked in found]
    best, scores = pairs[best_of(accuracies)], np.concatenate(accuracies, axis=1).mean(1)
    return FillingChoice(
        support=best.support,
        query=best.query,
        scores={str(pair): float(score) for pair, score in zip(pairs, scores) if np.isfinite(score)},
        parts=sorted({name for name, _ in found}),
    )


def candidates(protocol: Protocol, bank: FeatureBank) -> list[Pair]:
    """What is tried, the most plausible first: estimates for supports, and queries decided by what they have."""
    supports = protocol.k_shot != 0 and lacks(protocol, bank, "support")
    queries = lacks(protocol, bank, "query")
    if not queries:
        return [Pair(support=rule, query="drop") for rule in RULES]
    if not supports:
        return [Pair(support="drop", query=rule) for rule in ("match", *RULES)]
    matched = [Pair(support=rule, query="match") for rule in RULES if rule != "zero"]
    return [*matched, *(Pair(support=rule, query=rule) for rule in RULES)]


def best_of(accuracies: Sequence[np.ndarray]) -> int:
    """The first candidate that is not worse than the most accurate one beyond doubt, by accuracies [P, E] of each part.

    Beyond doubt is by more than two standard errors of the paired difference over all episodes, and by anything on
    every part. Parts are other classes, as those of the test are, and what they disagree about does not carry over,
    however many episodes are drawn of each. A candidate with an accuracy that is not finite is none.
    """
    accuracy = np.concatenate(accuracies, axis=1)
    best = int(np.nanargmax(accuracy.mean(1)))
    behind = accuracy[best] - accuracy
    error = behind.std(1) / np.sqrt(accuracy.shape[1])
    in_every_part = np.all([part[best].mean() > part.mean(1) for part in accuracies], axis=0)
    fair = np.isfinite(behind).all(1) & ~((behind.mean(1) > 2 * error) & in_every_part)
    return int(np.flatnonzero(fair)[0])


def _parts(
    known: BaseClips, val: FeatureBank | None, *, trained: bool
) -> list[tuple[str, FeatureBank, BaseClips]]:
    """The classes that are asked: their name, their clips, and the base clips that these are filled from."""
    found = []
    if val is not None and len(val.class_names) > 1:
        found.append(("val", val, known))
    if not (trained and found):
        found += [("base", half, other) for half, other in known.halves()]
    return found


def _ask(made: Filled, protocol: Protocol, episodes: int) -> Result:
    return measure(made.head, made.bank, protocol, episodes)


def _accuracies(
    head: Head[Any],
    protocol: Protocol,
    *,
    pairs: Sequence[Pair],
    bank: FeatureBank,
    known: BaseClips,
    ask: Ask,
) -> np.ndarray:
    """The accuracy of each candidate on each episode of a bank, [P, E]; NaN where the head cannot answer under it."""
    task = validation_protocol(protocol, bank)
    found: list[np.ndarray | None] = []
    for pair in pairs:
        made = filled(head, bank, pair, known)
        try:
            result = ask(made, task, EPISODES)
        except UsageError:  # Early fusion, say, cannot compare supports and queries of different modalities.
            found.append(None)
            continue
        each = result.per_episode()  # A whole split has no episodes and counts as one.
        found.append(each if len(each) else np.array([result.summary()["accuracy"]]))
    count = max((len(each) for each in found if each is not None), default=1)
    return np.stack([np.full(count, np.nan) if each is None else each.astype(np.float64) for each in found])


def _known(spec: RunSpec, banks: HeadBanks, rule: Rule) -> BaseClips | None:
    """The base clips that a rule fills from, or None where it fills nothing."""
    if rule in ("drop", "match"):
        return None
    try:
        return BaseClips(_base(spec, banks))
    except NoClips as error:
        raise UsageError(
            f"--when-missing {rule} fills what clips lack from base clips, and there are none ({error}); use drop."
        ) from None


def _base(spec: RunSpec, banks: HeadBanks) -> FeatureBank:
    """The base clips with the modalities that training clips carry."""
    return banks.base if spec.train_modalities is None else banks.base.select(spec.train_modalities)
