"""A protocol holds everything that defines a task, in one frozen value that every result stores."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import FsmmError, UsageError

Side = Literal["support", "query", "both"]
SmallClasses = Literal["refuse", "exclude", "short"]
LARGEST_SEED = 1 << 62
MOST = (
    1_000_000  # No data set has more clips of a class, and larger numbers do not fit where clips are counted.
)
"""Seeds lie below this, so that torch takes them and what is derived from them."""
# A Range is a number, or an inclusive range that is drawn from anew for every episode.
Range = int | tuple[int, int]
# The fields of a protocol that say which groups an episode may draw from.
GROUP_RULES = ("shared_group", "support_groups", "query_groups", "support_group_share")
_MISSING = re.compile(r"(?P<modality>[^=@]+)=(?P<rate>[^=@]+)(@(?P<side>support|query|both))?")


class TooFew(FsmmError):
    """The split has too few classes, clips or groups for the protocol."""


@dataclass(frozen=True)
class Missing:
    """A modality that is dropped from each clip at a rate."""

    modality: str
    """The modality, or the stream key where two streams share it."""
    rate: float
    """The probability of the loss, in [0, 1]."""
    side: Side = "both"
    """The side that loses the modality: support, query or both."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise UsageError(f"The missing rate of {self.modality!r} is {self.rate}; it must lie in [0, 1].")

    @classmethod
    def parse(cls, text: str) -> Missing:
        """The value of a text such as ``audio=0.5`` or ``audio=0.5@query``. Raises UsageError for any other form.

        >>> Missing.parse("audio=0.5@query")
        Missing(modality='audio', rate=0.5, side='query')
        """
        found = _MISSING.fullmatch(text)
        try:
            if not found:
                raise ValueError
            side: Any = found["side"] or "both"
            return cls(found["modality"], float(found["rate"]), side)
        except ValueError:
            raise UsageError(
                f"The missing rate {text!r} is not of the form modality=rate or modality=rate@side, such as "
                "audio=0.5@query."
            ) from None

    def __str__(self) -> str:
        return f"{self.modality}={self.rate:g}@{self.side}"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The definition of a task and of what it withholds. Episode i is a pure function of (data set, protocol, i).

    >>> task = Protocol(n_way=5, k_shot=1, missing=(Missing("audio", 0.5, "query"),))
    >>> task.describe()
    '5-way 1-shot; 15 queries a class; missing audio=0.5@query'
    >>> Protocol.from_dict(task.to_dict()) == task
    True
    """

    n_way: Range = 5
    """The classes of an episode: a number, a range such as 5-10 drawn anew for every episode, or 0 for all classes."""
    k_shot: Range = 1
    """The supports of a class: a number, a range such as 1-5, or 0 for zero-shot, where words name the classes."""
    n_query: int = 15
    """The queries of a class."""
    split: str = "novel"
    """The classes that episodes are drawn from: base, val, novel or all."""
    label_set: str | None = None
    """The label set, or several joined by a plus sign (else the data set's default)."""
    class_split: str = "default"
    """Which class split divides the classes: a stored one, or one drawn: random:8:3 has 8 novel classes by seed 3."""
    clip_split: str | None = None
    """Only clips of this split of the data set's own, such as test, are used (else all clips)."""
    seed: int = 0
    """The seed of the episodes."""
    support_modalities: tuple[str, ...] | None = None
    """The modalities that supports carry, such as frame (else all); tasks are cross-modal if queries carry others."""
    query_modalities: tuple[str, ...] | None = None
    """The modalities that queries carry, such as audio (else all)."""
    missing: tuple[Missing, ...] = ()
    """A modality that clips lack at a rate, such as audio=0.5@query; repeatable."""
    noisy: tuple[Missing, ...] = ()
    """A modality that is noise instead of features at a rate, such as audio=0.5@query; repeatable."""
    may_lose_all: bool = False
    """Whether a clip may lose every modality; otherwise it keeps at least one of its own."""
    dirichlet: float | None = None
    """The alpha of the Dirichlet law that divides an episode's queries among its classes (else equal shares)."""
    query_classes: int | None = None
    """The number of classes of an episode that all its queries come from, drawn anew for every episode (else all)."""
    small_classes: SmallClasses = "refuse"
    """What becomes of classes with fewer clips than supports and queries need: refuse, exclude, or draw them short."""
    unlabelled: int = 0
    """The number of further clips without labels that each episode gives to heads that use them."""
    generalised: bool = False
    """Whether the base classes compete with the split's own (zero-shot over whole splits: --n-way 0 --k-shot 0)."""
    retrieval: bool = False
    """Whether clips of the split are looked up, by class words and by one modality in another, not classified."""
    shared_group: bool = True
    """Whether supports and queries of an episode may share a group: a person, a source video (else none is shared)."""
    support_groups: tuple[str, ...] | None = None
    """The groups (persons, source videos) that supports come from; queries come from the others unless named, too."""
    query_groups: tuple[str, ...] | None = None
    """The groups that queries come from; supports come from the others unless named, too."""
    support_group_share: float | None = None
    """The share of the groups, drawn by the seed, that supports come from; queries come from the other groups."""
    replay: str | None = None
    """The SHA-256 of the file that the episodes were read from (else they are drawn)."""

    def __post_init__(self) -> None:
        _check_range("n_way", self.n_way, 0)
        _check_range("k_shot", self.k_shot, 0)
        if self.n_query < 1:
            raise UsageError(f"n_query is {self.n_query}; an episode needs at least one query a class.")
        _check_range("n_query", self.n_query, 1)
        if not 0 <= self.seed < LARGEST_SEED:
            raise UsageError(
                f"The seed is {self.seed}; it must not be negative, and must be below {LARGEST_SEED}."
            )
        if self.unlabelled < 0:
            raise UsageError(f"unlabelled is {self.unlabelled}; it must not be negative.")
        _check_range("unlabelled", self.unlabelled, 0)
        if self.dirichlet is not None and not 0 < self.dirichlet < math.inf:
            raise UsageError(f"The Dirichlet parameter is {self.dirichlet}; it must be positive and finite.")
        self._check_query_classes()
        if self.small_classes not in ("refuse", "exclude", "short"):
            raise UsageError(f"small_classes is {self.small_classes!r}; use refuse, exclude or short.")
        self._check_groups()
        for option, rates in (("--missing", self.missing), ("--noisy", self.noisy)):
            sides = [(m.modality, m.side) for m in rates]
            if twice := [side for side in sides if sides.count(side) > 1]:
                raise UsageError(f"{option} names {twice[0][0]!r} at {twice[0][1]} twice; give one rate.")

    def _check_query_classes(self) -> None:
        fewest = bounds(self.n_way)[0]
        if self.query_classes is not None and self.query_classes < 1:
            raise UsageError(f"query_classes is {self.query_classes}; at least one class needs queries.")
        if self.query_classes is not None and 0 < fewest < self.query_classes:
            raise UsageError(
                f"query_classes is {self.query_classes}, but an episode has as few as {fewest} classes; lower it, or "
                "raise --n-way."
            )

    def _check_groups(self) -> None:
        named = self.support_groups is not None or self.query_groups is not None
        share = self.support_group_share
        if share is not None and not 0 < share < 1:
            raise UsageError(f"support_group_share is {share}; it must lie between 0 and 1.")
        if share is not None and named:
            raise UsageError(
                "Groups are drawn by --support-group-share or named by --support-groups, not both."
            )
        if both := sorted(set(self.support_groups or ()) & set(self.query_groups or ())):
            raise UsageError(
                f"Group {both[0]!r} is named for supports and for queries; it can serve one of them."
            )
        if (named or share is not None or not self.shared_group) and self.k_shot == 0:
            raise UsageError(
                "Zero-shot episodes have no supports, so rules about groups do not apply to them."
            )

    @property
    def cross_modal(self) -> bool:
        return self.support_modalities != self.query_modalities

    @property
    def uneven_queries(self) -> bool:
        """Whether the classes of an episode have different numbers of queries by design."""
        return self.dirichlet is not None or self.query_classes is not None

    @property
    def withholds(self) -> bool:
        """Whether modalities are named for a side of the episodes, or taken from clips at a rate above zero."""
        named = (self.support_modalities, self.query_modalities) != (None, None)
        return named or any(loss.rate > 0 for loss in self.missing)

    @property
    def cross_group(self) -> bool:
        """Whether supports come from some groups and queries from others, the same in every episode."""
        return (self.support_groups, self.query_groups, self.support_group_share) != (None, None, None)

    @property
    def rules_groups(self) -> bool:
        """Whether groups decide which clips an episode may hold."""
        return self.cross_group or not self.shared_group

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; that of a file of episodes only where there is one."""
        values = asdict(self)
        if self.replay is None:
            del values["replay"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """The protocol whose ``to_dict`` gives ``values``. Raises UsageError for an unknown field."""
        names = {f.name for f in fields(cls)}
        if strange := set(values) - names:
            raise UsageError(
                f"A protocol has no field {sorted(strange)[0]!r}; it has {', '.join(sorted(names))}."
            )
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        for name in ("missing", "noisy"):
            rates = given.get(name, ())
            given[name] = tuple(m if isinstance(m, Missing) else Missing(**m) for m in rates)
        return cls(**given)

    def describe(self) -> str:
        """One line that describes the task in a table's caption."""
        shot = f"{_range(self.k_shot)}-shot" if self.k_shot != 0 else "zero-shot"
        way = f"{_range(self.n_way)}-way" if self.n_way != 0 else "all-way"
        parts = [f"{way} {shot}", f"{self.n_query} queries a class"]
        if self.query_classes is not None:
            parts.append(f"queries from {self.query_classes} class{'es' if self.query_classes > 1 else ''}")
        if self.dirichlet is not None:
            parts.append(f"query classes Dirichlet({self.dirichlet:g})")
        if self.cross_modal:
            parts.append(f"support {_names(self.support_modalities)}, query {_names(self.query_modalities)}")
        if self.missing:
            parts.append("missing " + ", ".join(map(str, self.missing)))
        if self.noisy:
            parts.append("noisy " + ", ".join(map(str, self.noisy)))
        if self.unlabelled:
            parts.append(f"{self.unlabelled} unlabelled clips")
        if self.generalised:
            parts.append("generalised")
        if self.retrieval:
            parts = ["clips of the split looked up"]
        if self.rules_groups:
            parts.append(self._describe_groups())
        if self.replay is not None:
            parts.append(f"episodes of the file {self.replay[:10]}")
        return "; ".join(parts)

    def _describe_groups(self) -> str:
        if self.support_group_share is not None:
            return (
                f"supports from {100 * self.support_group_share:g} % of the groups, queries from the others"
            )
        if not self.cross_group:
            return "supports and queries share no group"
        support, query = (
            "the other groups" if names is None else f"group {'+'.join(names)}"
            for names in (self.support_groups, self.query_groups)
        )
        return f"supports from {support}, queries from {query}"


def parse_range(what: str, text: str) -> Range:
    """The value of ``5`` or ``5-10``. Raises UsageError, naming ``what``, for any other form."""
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash and low else int(text)
    except ValueError:
        raise UsageError(f"{what} {text!r} is neither a number nor a range such as 5-10.") from None


def bounds(value: Range) -> tuple[int, int]:
    """The lowest and the highest value of a number or range."""
    return (value, value) if isinstance(value, int) else value


def _check_range(name: str, value: Range, least: int) -> None:
    low, high = bounds(value)
    if low < least or high < low:
        raise UsageError(f"{name} is {_range(value)}; it must be at least {least}, and a range must ascend.")
    if high > MOST:
        raise UsageError(f"{name} is {_range(value)}; it must be at most {MOST:,}.")


def _range(value: Range) -> str:
    low, high = bounds(value)
    return str(low) if low == high else f"{low}-{high}"


def _names(modalities: tuple[str, ...] | None) -> str:
    return "+".join(modalities) if modalities else "all"
