"""The protocol: everything that defines a task, in one frozen value that every result stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ..errors import UsageError

Side = Literal["support", "query", "both"]
SmallClasses = Literal["refuse", "exclude", "short"]
_MISSING = re.compile(r"(?P<modality>[^=@]+)=(?P<rate>[^=@]+)(@(?P<side>support|query|both))?")


@dataclass(frozen=True)
class Missing:
    """A modality dropped from each clip with probability ``rate``, in the support, the queries or both."""

    modality: str
    rate: float
    side: Side = "both"

    def __post_init__(self) -> None:
        if not 0.0 <= self.rate <= 1.0:
            raise UsageError(f"The missing rate of {self.modality!r} is {self.rate}; it must lie in [0, 1].")

    @classmethod
    def parse(cls, text: str) -> Missing:
        """From ``audio=0.5`` or ``audio=0.5@query``. Raises UsageError for any other form.

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
                f"--missing {text!r} is not of the form modality=rate or modality=rate@side, such as audio=0.5@query."
            ) from None

    def __str__(self) -> str:
        return f"{self.modality}={self.rate:g}@{self.side}"


@dataclass(frozen=True)
class Protocol:
    """What a task is and what it withholds. Episode i is a pure function of (dataset, this, i).

    n_way, k_shot: a number, or an inclusive range drawn anew for every episode. n_way 0: all classes of the split.
        k_shot 0 is zero-shot: classes are given by their words.
    n_query: queries a class; with ``dirichlet`` the total n_way * n_query is shared out by Dirichlet(alpha) draws
        (Veilleux et al. 2021) instead of equally.
    split, label_set, class_split, clip_split: which clips (see FeatureBank.load).
    support_modalities, query_modalities: None for all; different ones make a cross-modal task.
    missing: modalities dropped at a rate; a clip keeps at least one of its own unless ``may_lose_all``.
    small_classes: "refuse" classes with fewer than shot + query clips, "exclude" them, or sample them "short".
    unlabelled: further clips without labels handed to heads that use them.
    generalised: the base classes compete with the split's own (generalised zero-shot).

    >>> task = Protocol(n_way=5, k_shot=1, missing=(Missing("audio", 0.5, "query"),))
    >>> task.describe()
    '5-way 1-shot; 15 queries a class; missing audio=0.5@query'
    >>> Protocol.from_dict(task.to_dict()) == task
    True
    """

    n_way: int | tuple[int, int] = 5
    k_shot: int | tuple[int, int] = 1
    n_query: int = 15
    split: str = "novel"
    label_set: str | None = None
    class_split: str = "default"
    clip_split: str | None = None
    seed: int = 0
    support_modalities: tuple[str, ...] | None = None
    query_modalities: tuple[str, ...] | None = None
    missing: tuple[Missing, ...] = ()
    may_lose_all: bool = False
    dirichlet: float | None = None
    small_classes: SmallClasses = "refuse"
    unlabelled: int = 0
    generalised: bool = False

    def __post_init__(self) -> None:
        _check_range("n_way", self.n_way, 0)
        _check_range("k_shot", self.k_shot, 0)
        if self.n_query < 1:
            raise UsageError(f"n_query is {self.n_query}; an episode needs at least one query a class.")
        if self.seed < 0:
            raise UsageError(f"The seed is {self.seed}; it must not be negative.")
        if self.unlabelled < 0:
            raise UsageError(f"unlabelled is {self.unlabelled}; it must not be negative.")
        if self.dirichlet is not None and not self.dirichlet > 0:
            raise UsageError(f"The Dirichlet parameter is {self.dirichlet}; it must be positive.")
        if self.small_classes not in ("refuse", "exclude", "short"):
            raise UsageError(f"small_classes is {self.small_classes!r}; use refuse, exclude or short.")
        twice = [
            m
            for m in self.missing
            if [(n.modality, n.side) for n in self.missing].count((m.modality, m.side)) > 1
        ]
        if twice:
            raise UsageError(
                f"--missing names {twice[0].modality!r} at {twice[0].side} twice; give one rate."
            )

    @property
    def cross_modal(self) -> bool:
        return self.support_modalities != self.query_modalities

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Protocol:
        """The inverse of to_dict. Raises UsageError for an unknown field."""
        known = {f.name for f in fields(cls)}
        if strange := set(values) - known:
            raise UsageError(
                f"A protocol has no field {sorted(strange)[0]!r}; it has {', '.join(sorted(known))}."
            )
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        given["missing"] = tuple(
            m if isinstance(m, Missing) else Missing(**m) for m in given.get("missing", ())
        )
        return cls(**given)

    def describe(self) -> str:
        """One line for a table's caption."""
        shot = f"{_range(self.k_shot)}-shot" if self.k_shot != 0 else "zero-shot"
        way = f"{_range(self.n_way)}-way" if self.n_way != 0 else "all-way"
        parts = [f"{way} {shot}", f"{self.n_query} queries a class"]
        if self.dirichlet is not None:
            parts.append(f"query classes Dirichlet({self.dirichlet:g})")
        if self.cross_modal:
            parts.append(f"support {_names(self.support_modalities)}, query {_names(self.query_modalities)}")
        if self.missing:
            parts.append("missing " + ", ".join(map(str, self.missing)))
        if self.unlabelled:
            parts.append(f"{self.unlabelled} unlabelled clips")
        if self.generalised:
            parts.append("generalised")
        return "; ".join(parts)


def parse_range(name: str, text: str) -> int | tuple[int, int]:
    """From ``5`` or ``5-10``. Raises UsageError for any other form.

    >>> parse_range("n-way", "5"), parse_range("n-way", "5-10")
    (5, (5, 10))
    """
    low, dash, high = text.partition("-")
    try:
        return (int(low), int(high)) if dash and low else int(text)
    except ValueError:
        raise UsageError(f"--{name} {text!r} is neither a number nor a range such as 5-10.") from None


def bounds(value: int | tuple[int, int]) -> tuple[int, int]:
    """(lowest, highest) of a number or range."""
    return (value, value) if isinstance(value, int) else value


def _check_range(name: str, value: int | tuple[int, int], least: int) -> None:
    low, high = bounds(value)
    if low < least or high < low:
        raise UsageError(f"{name} is {_range(value)}; it must be at least {least}, and a range must ascend.")


def _range(value: int | tuple[int, int]) -> str:
    low, high = bounds(value)
    return str(low) if low == high else f"{low}-{high}"


def _names(modalities: tuple[str, ...] | None) -> str:
    return "+".join(modalities) if modalities else "all"
