"""Typed settings: what a method lets its user choose, what each choice means, and which values it may take.

A method's settings are a frozen dataclass. Every field has a docstring of its own on the line below it, and its type
says which values are allowed: ``Literal`` for names, :data:`Positive`, :data:`Share` and the like for numbers. Values
are checked in one place, when the dataclass is made; ``fsmm methods NAME`` prints fields, docstrings and values.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from ..errors import UsageError, unknown
from ..machine.field_docs import field_docs


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``; an end that is open does not belong to them."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.low_open else f"{self.low:g} or more"
        first, last = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"in {first}{self.low:g}, {self.high:g}{last}"


Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, high_open=True)]
"""A share of numbers that are dropped, as in dropout."""
Count = Annotated[int, Range(1)]
CountOrNone = Annotated[int, Range(0)]
"""A count for which 0 means that there is no such thing."""


@dataclass(frozen=True)
class Settings:
    """A head's settings; every head has a frozen subclass. ``--set key=value`` sets one."""

    files: ClassVar[tuple[str, ...]] = ()
    """The settings that name a file, whose content then belongs to what a run is."""

    def __post_init__(self) -> None:
        check(self)

    @property
    def adds_weights(self) -> bool:
        """Whether these settings give weights to a head whose method has nothing to train by default."""
        return False


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; a head's default is its published recipe, scaled to cached features."""

    steps: CountOrNone = 1000
    """Optimiser steps, of which more follow while accuracy on the val classes rises; 0 leaves the head as it begins."""
    ceiling: Count = 4
    """How many times ``steps`` a training may take while accuracy on the val classes rises; 1: ``steps`` and no more,
    which is also what ``--set train.steps=...`` alone asks for."""
    minutes: NonNegative = 0.0
    """Minutes after which training ends at its next step, whatever the val classes say; 0: none. How far it comes then
    depends on the machine."""
    tasks: Count = 8
    """Episodes a step; for heads that are trained on batches of clips, clips a step."""
    way: int | None = None
    """Classes of a training episode; none: as many as are evaluated."""
    shot: int | None = None
    """Supports a class of a training episode; none: as many as are evaluated."""
    query: Count = 10
    """Queries a class of a training episode."""
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    """The optimiser."""
    rate: Positive = 1e-3
    """The learning rate."""
    momentum: Rate = 0.9
    """The momentum of SGD."""
    weight_decay: NonNegative = 0.0
    """The weight decay."""
    decay: Positive = 0.5
    """The factor by which the learning rate is multiplied every ``decay_every`` steps."""
    decay_every: CountOrNone = 0
    """Steps between two decays of the learning rate; 0: it never decays."""
    clip_norm: NonNegative = 0.0
    """The norm to which gradients are clipped; 0: they are not."""
    clip_value: NonNegative = 0.0
    """The value to which every entry of the gradients is clipped; 0: none is."""
    evaluate_every: Count = 50
    """Steps between two evaluations on the val classes; the untrained head is the first candidate."""
    evaluate_episodes: Count = 400
    """Episodes of an evaluation on the val classes."""
    patience: Count = 8
    """Evaluations without a gain on the val classes after which accuracy no longer counts as rising, and training
    ends."""
    # One measured step was tried as a rule instead: neither its products nor its products an operation tell the methods
    # that gain from those that lose, and a rule by size would add up the gradients of other methods in another order on
    # wide features, which changes what they learn.
    clips: CountOrNone = 0
    """Base clips that training sees, the first of an order that the seed draws; 0: all of them."""
    every_core: bool = False
    """Train on every core instead of half of them, for steps that take seconds of large operations."""
    mix: Share = 0.0
    """The share of training classes that blends of two base classes replace, against memorising few of them."""

    def __post_init__(self) -> None:
        check(self)


D = TypeVar("D")


def docs_of(cls: type[Any]) -> dict[str, str]:
    """The docstring below every field of a dataclass, on one line."""
    return {name: " ".join(text.split()) for name, text in field_docs(cls).items()}


def types_of(cls: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields, with the ranges that belong to them."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


def check(settings: Any) -> None:
    """Raise UsageError for a field whose value its type does not allow, naming what it does."""
    types = types_of(type(settings))
    for field in fields(settings):
        _check_value(field.name, getattr(settings, field.name), types[field.name])


def _check_value(name: str, value: Any, kind: Any) -> None:
    if value is None and _is_optional(kind):
        return
    kind, limits = unwrapped(kind)
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise unknown(name, str(value), [str(choice) for choice in typing.get_args(kind)])
    elif isinstance(value, tuple):
        for part in value:
            _check_value(name, part, next(iter(typing.get_args(kind)), Any))
    elif limits is not None and value not in limits:
        raise UsageError(f"{name}={value:g} is not allowed; it must be {limits}.")


def _is_optional(kind: Any) -> bool:
    """Whether a type allows None."""
    return typing.get_origin(kind) in (typing.Union, UnionType) and NoneType in typing.get_args(kind)


def unwrapped(kind: Any) -> tuple[Any, Range | None]:
    """A type without its range and without None, and the range; None where it has no range."""
    limits: Range | None = None
    if typing.get_origin(kind) in (typing.Union, UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not NoneType)
    if typing.get_origin(kind) is Annotated:
        kind, *extra = typing.get_args(kind)
        limits = next((e for e in extra if isinstance(e, Range)), None)
    return kind, limits


def values_of(kind: Any) -> str:
    """The values that a type allows, as a person reads them: "cosine | euclidean", "float above 0"."""
    optional = _is_optional(kind)
    inner, limits = unwrapped(kind)
    if typing.get_origin(inner) is Literal:
        text = " | ".join(str(choice) for choice in typing.get_args(inner))
    elif typing.get_origin(inner) is tuple:
        text = f"{values_of(typing.get_args(inner)[0])}, several by commas"
    elif inner is bool:
        text = "true | false"
    else:
        text = getattr(inner, "__name__", str(inner)) + (f" {limits}" if limits else "")
    return f"{text}, or none" if optional else text


def default_of(field: Field[Any]) -> Any:
    """The default value of a dataclass's field."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def make_settings(cls: type[D], given: Mapping[str, str], what: str) -> D:
    """Settings (or a Recipe) from ``key=value`` texts.

    Raises UsageError for an unknown key, naming the nearest one, and for a value that the field's type does not allow.
    """
    return update_settings(cls(), given, what)


def update_settings(current: D, given: Mapping[str, str], what: str) -> D:
    """``current`` with some fields set from texts. Raises as :func:`make_settings`."""
    types = types_of(type(current))
    known = {field.name for field in fields(typing.cast("Any", current))}
    for key in given:
        if key not in known:
            raise unknown(f"setting of {what}", key, known)
    parsed = {key: parse_value(key, text, types[key]) for key, text in given.items()}
    return typing.cast("D", replace(typing.cast("Any", current), **parsed))


def parse_value(key: str, text: str, kind: Any) -> Any:
    """A field's value from a text, as its type says. Raises UsageError where the text does not parse."""
    if _is_optional(kind) and text.lower() == "none":
        return None
    inner, _ = unwrapped(kind)
    if typing.get_origin(inner) is Literal:
        return next((choice for choice in typing.get_args(inner) if str(choice) == text), text)
    if typing.get_origin(inner) is tuple:
        return tuple(
            parse_value(key, part, typing.get_args(inner)[0]) for part in text.split(",") if part.strip()
        )
    try:
        if inner is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        return inner(text.strip())
    except (ValueError, KeyError):
        raise UsageError(f"Setting {key}={text!r} is not a {inner.__name__}.") from None
