"""The choice of what becomes of modalities that clips lack, by base and val classes under the run's own protocol.

Every candidate answers the same episodes of classes that are not those of the test, and of which its fits know nothing:
each half of the base classes, filled from the other half, and the val classes, filled from all base classes. A head
that was trained on base classes is asked about val classes alone where there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ..cache.bank import FeatureBank
from ..episodes.draw import query_room
from ..episodes.protocol import Protocol, TooFew, bounds
from ..errors import NoClips, UsageError
from ..heads.head import Head
from ..heads.multimodal.matched import Estimates, MatchedHead
from .banks import Banks, HeadBanks
from .filling import READ_FEATURES, WITHOUT_BASE, BaseClips, Pair, Rule, gone, lacks, withholds
from .measure import measure
from .result import Result
from .spec import RunSpec
from .tasks import validation_protocol

EPISODES = 200  # Each candidate answers so many episodes of each part.
VERSION = 6
"""A number that grows when the choice changes, so that studies do runs again that depend on it."""
RULES: tuple[Rule, ...] = ("linear", "neighbours", "mean", "drop", "zero")


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What one way with what clips lack, for supports and queries alike, reaches beside the chosen one."""

    way: Rule
    """The way."""
    accuracy: float
    """Its accuracy on the tested episodes, in 0..1."""
    gain: float
    """Its accuracy minus that of the chosen way."""
    ci95: float | None
    """The 95 % half width of the gain over clips, or over draws where there is none over clips; None where it has no
    value, as of a single episode."""

    @property
    def is_ahead(self) -> bool:
        """Whether it is better than the chosen way beyond the interval."""
        return self.ci95 is not None and self.gain > self.ci95


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
    scores_by_part: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same for each part of these classes, in words: val classes, and each half of the base classes."""
    beside: list[Beside] = field(default_factory=list)
    """What every way alone reaches on the tested episodes, found afterwards (filling_promise.py)."""
    note: str = ""
    """Why nothing could be chosen, or where the promise is not kept; "" where neither is so."""

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
    known: BaseClips | None = None
    """What clips may be filled from, where something was chosen; None where there are no base clips."""

    @property
    def clips(self) -> FeatureBank:
        """The clips without what is filled in."""
        return self.bank if self.source is None else self.source

    @property
    def own_head(self) -> Head[Any]:
        """The head without what asks it about each query by what the query has."""
        return self.head.inner if isinstance(self.head, MatchedHead) else self.head


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
        return replace(filled(head, bank, Pair(support="drop", query="drop"), None), choice=nothing)
    ask = ask or partial(_ask, transductive=spec.resolved.transductive)
    choice = choose(head, spec.protocol, known=known, val=banks.val, test=bank, trained=trained, ask=ask)
    made = filled(head, bank, Pair(support=choice.support, query=choice.query), known)
    return replace(made, choice=choice, known=known)


def known_base(spec: RunSpec, banks: HeadBanks) -> BaseClips:
    """What the base clips of a run know of what clips lack. Raises NoClips where there are none."""
    return BaseClips(_base(spec, banks))


def provisional(head: Head[Any], bank: FeatureBank, spec: RunSpec, banks: HeadBanks) -> Filled:
    """The head and a bank as a run measures them before anything was chosen: in validation, and for trying out.

    Where a choice will be made, what the protocol takes from whole sides is filled linearly meanwhile (under noise by
    the mean), and the rest is dropped, so that any head can answer. Raises UsageError where there are no base clips to
    fill from.
    """
    estimate: Rule = "mean" if spec.protocol.noisy else "linear"
    rule = estimate if spec.protocol.cross_modal else "drop"
    if spec.when_missing != "auto":
        rule = spec.when_missing
    if len(bank.tables) < 2 or rule == "drop":
        return Filled(head=head, bank=bank)
    return filled(head, bank, Pair(support=rule, query=rule), _known(spec, banks, rule))


def filled(head: Head[Any], bank: FeatureBank, pair: Pair, known: BaseClips | None) -> Filled:
    """The head and the bank under a pair of rules; known: the base clips, None where the rules need none."""
    if len(bank.tables) < 2:
        return Filled(head=head, bank=bank, source=bank, pair=pair)
    if pair.query == "match-linear":
        assert known is not None, "what is estimated is estimated from base clips"
        supports: Rule = "linear" if pair.support == "match-linear" else pair.support
        estimates = Estimates(
            supports=known.over(bank, Pair(support=supports, query="drop")),
            shared=known.over(bank, Pair(support="linear", query="linear")),
        )
        return Filled(head=MatchedHead(head, estimates), bank=bank, source=bank, pair=pair)
    asked = MatchedHead(head) if pair.query == "match" else head
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
    pairs = [pair for pair in candidates(protocol, test) if can_serve(pair, protocol)]
    found: list[Asked] = []
    for name, text, bank, source in _parts(known, val, trained=trained):
        if protocol.split in (name, "all"):
            continue
        try:
            results = _results(head, protocol, pairs=pairs, bank=bank, known=source, ask=ask or _ask)
        except TooFew:
            continue
        if results:
            found.append(Asked(name=name, text=text, results=results))
    if not found:
        note = (
            "what clips lack is dropped, for neither base nor val classes can serve the task to choose by it"
        )
        return FillingChoice(support="drop", query="drop", scores={}, parts=[], note=note)
    return _chosen(pairs, found, unanimous=not lacks(protocol, test, "query"))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A part of the base or val classes, and what each candidate reached on it."""

    name: str
    """base or val."""
    text: str
    """The classes in words."""
    results: Mapping[str, Result]
    """The results of the candidates under which the head can answer, by their names."""

    def accuracies(self, names: Sequence[str]) -> np.ndarray:
        """The accuracy of each candidate on each episode, [P, E]; NaN where the head cannot answer under it."""
        each = {name: _per_episode(result) for name, result in self.results.items()}
        nothing = np.full(len(next(iter(each.values()))), np.nan)
        return np.stack([each.get(name, nothing) for name in names])


def _chosen(pairs: Sequence[Pair], found: Sequence[Asked], *, unanimous: bool) -> FillingChoice:
    """The choice by the results of each part; unanimous: see ``best_of``."""
    names = [str(pair) for pair in pairs]
    accuracies = [part.accuracies(names) for part in found]
    best = best_of(accuracies, unanimous=unanimous)
    scores = np.concatenate(accuracies, axis=1).mean(1)
    return FillingChoice(
        support=pairs[best].support,
        query=pairs[best].query,
        scores={name: float(score) for name, score in zip(names, scores) if np.isfinite(score)},
        parts=sorted({part.name for part in found}),
        scores_by_part={
            part.text: {name: float(_per_episode(result).mean()) for name, result in part.results.items()}
            for part in found
        },
    )


def candidates(protocol: Protocol, bank: FeatureBank) -> list[Pair]:
    """What is tried, the most plausible first: estimates for supports, and queries decided by what they have.

    Estimates of what a query lacks come before its absence where its supports carry the same ones: both are then the
    same function of what they have, which base classes have learned, and absence would give away all that it says.
    """
    alike = [Pair(support=rule, query=rule) for rule in RULES]
    if gone(protocol, bank):
        return [alike[0], Pair(support="drop", query="match"), *alike[1:]]
    supports = protocol.k_shot != 0 and lacks(protocol, bank, "support")
    queries = lacks(protocol, bank, "query")
    if not queries:
        return [Pair(support=rule, query="drop") for rule in RULES]
    if not supports:
        return [Pair(support="drop", query=rule) for rule in ("match-linear", "match", *RULES)]
    estimated = [Pair(support=rule, query="match-linear") for rule in RULES if rule not in ("drop", "zero")]
    matched = [Pair(support=rule, query="match") for rule in RULES if rule != "zero"]
    return [*estimated, *matched, *alike]


def can_serve(pair: Pair, protocol: Protocol) -> bool:
    """Whether the rules read nothing that the protocol replaces: under noise, estimates would be made without it."""
    return not (protocol.noisy and {pair.support, pair.query} & set(READ_FEATURES))


def best_of(accuracies: Sequence[np.ndarray], *, unanimous: bool) -> int:
    """The first candidate that is not worse than the most accurate one beyond doubt, by accuracies [P, E] of each part.

    Beyond doubt is by more than two standard errors of the paired difference over all episodes. unanimous: it is also
    by anything on every part. Parts are other classes, as those of the test are, and what they disagree about may not
    carry over, however many episodes are drawn of each. A candidate with an accuracy that is not finite is none.
    """
    accuracy = np.concatenate(accuracies, axis=1)
    best = int(np.nanargmax(accuracy.mean(1)))
    behind = accuracy[best] - accuracy
    error = behind.std(1) / np.sqrt(accuracy.shape[1])
    worse = behind.mean(1) > 2 * error
    if unanimous:
        worse &= np.all([part[best].mean() > part.mean(1) for part in accuracies], axis=0)
    return int(np.flatnonzero(np.isfinite(behind).all(1) & ~worse)[0])


def _parts(
    known: BaseClips, val: FeatureBank | None, *, trained: bool
) -> list[tuple[str, str, FeatureBank, BaseClips]]:
    """The classes that are asked: their name, the same in words, their clips, and what these are filled from."""
    found = []
    if val is not None and len(val.class_names) > 1:
        found.append(("val", "val classes", val, known))
    if not (trained and found):
        texts = ("the first half of the base classes", "the second half of the base classes")
        found += [("base", text, half, other) for text, (half, other) in zip(texts, known.halves())]
    return found


def _ask(made: Filled, protocol: Protocol, episodes: int, *, transductive: bool = True) -> Result:
    return measure(made.head, made.bank, protocol, episodes, transductive=transductive)


def _results(
    head: Head[Any],
    protocol: Protocol,
    *,
    pairs: Sequence[Pair],
    bank: FeatureBank,
    known: BaseClips,
    ask: Ask,
) -> dict[str, Result]:
    """The result of each candidate under which the head can answer, on the same episodes of a bank."""
    task, found = _task(protocol, bank), {}
    for pair in pairs:
        made = filled(head, bank, pair, known)
        try:
            found[str(pair)] = ask(made, task, EPISODES)
        except UsageError:  # Early fusion, say, cannot compare supports and queries of different modalities.
            continue
    return found


def _task(protocol: Protocol, bank: FeatureBank) -> Protocol:
    """The run's task on other classes, balanced where none of them is short, so that it has intervals over clips."""
    task = validation_protocol(protocol, bank)
    if task.small_classes != "short" or task.uneven_queries or task.rules_groups:
        return task
    short = query_room(bank, task, bounds(task.k_shot)[1]).min() < task.n_query
    return task if short else replace(task, small_classes="exclude")


def _per_episode(result: Result) -> np.ndarray:
    """The accuracy of each episode, float64 [E]; a whole split has no episodes and counts as one."""
    each = result.per_episode()
    return (each if len(each) else np.array([result.summary()["accuracy"]])).astype(np.float64)


def _known(spec: RunSpec, banks: HeadBanks, rule: Rule) -> BaseClips | None:
    """The base clips that a rule fills from, or None where it fills nothing."""
    if rule in WITHOUT_BASE:
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
