"""What a tuning varies: the settings of a head, with the values that their types and defaults suggest.

A name or a flag takes every value that its type allows. A number is searched about its default: a positive one between
a tenth and ten times of it on a logarithmic scale, a share from 0 to 1, a count between its half and its double. The
recipe gives its steps and its learning rate. Settings whose default leaves the choice to the head, or of which nothing
is known but that they are texts, are searched only where a range is given for them.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from ...errors import UsageError, unknown
from ...heads.build import DEFAULT_FUSION
from ...heads.multimodal.fusion import FusionSettings
from ...heads.registry import find
from ...heads.settings import default_of, parse_value, types_of, unwrapped
from ...runs.kinds import text_of
from ...runs.spec import RunSpec
from ..grid.identity import check_settings, may_learn

ALL = "all"
"""The key of --search that stands for every setting that has a range of its own."""
RECIPE, WRAPPER = "train.", "fusion."
_OF_RECIPE = ("steps", "rate")
_OF_FUSION = {"ec": ("weights",), "ea": ("weights", "attention"), "lf": ("weights", "rule", "temperature")}
_DIGITS = 4  # A number is rounded to so many, so that a setting can be typed.


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting that is searched."""

    key: str
    """The setting as --set takes it, such as scale or train.rate."""
    choices: tuple[str, ...] = ()
    """The texts of its values; empty for a range of numbers."""
    low: float = 0.0
    """The least value of a range."""
    high: float = 0.0
    """The greatest value of a range."""
    whole: bool = False
    """Whether the numbers of a range are whole."""
    log: bool = False
    """Whether a range is searched on a logarithmic scale."""

    @property
    def size(self) -> float:
        """The number of values; infinite for a range of real numbers."""
        if self.choices:
            return len(self.choices)
        return self.high - self.low + 1 if self.whole else math.inf

    def text(self, value: Any) -> str:
        """A value as --set takes it.

        >>> Dimension(key="rate", low=1e-4, high=0.1, log=True).text(0.001234567)
        '0.001235'
        """
        if self.choices:
            return str(value)
        if self.whole:
            return str(round(value))
        return f"{min(max(float(f'{value:.{_DIGITS}g}'), self.low), self.high):.{_DIGITS + 2}g}"

    def value(self, text: str) -> str | int | float | None:
        """The value of a text; None where it does not lie among those that are searched."""
        if self.choices:
            return text if text in self.choices else None
        try:
            found = int(text) if self.whole else float(text)
        except ValueError:
            return None
        return found if self.low <= found <= self.high else None

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key} {' | '.join(self.choices)}"
        return f"{self.key} {self.low:g} to {self.high:g}{' (log)' if self.log else ''}"


def space_of(spec: RunSpec, search: Sequence[str], *, modalities: int) -> list[Dimension]:
    """The settings of a run that are searched, without those that the run sets.

    search: the texts of --search, KEY or KEY=RANGE; where there are some, nothing else is searched unless ``all`` is
    among them. modalities: the number that the head is built for. Raises UsageError for an unknown key, a value that
    the setting does not allow, and where nothing is left to search.
    """
    known = _known(spec, modalities)
    asked = dict(_asked(text) for text in search)
    every = asked.pop(ALL, "") is None or not search
    found: dict[str, Dimension] = {}
    for key, (kind, default, usual) in known.items():
        if (
            usual
            and every
            and key not in spec.settings
            and (own := own_range(key, kind, default)) is not None
        ):
            found[key] = own
    for key, text in asked.items():
        found[key] = _given(spec, key, text, known)
    if not found:
        raise UsageError(
            f"Nothing of {spec.method} is left to search: its settings are set, or have no range of their own; give "
            "one with --search KEY=LOW:HIGH or --search KEY=A,B."
        )
    return list(found.values())


def defaults(spec: RunSpec, space: Sequence[Dimension], *, modalities: int) -> dict[str, str]:
    """The texts of the searched settings' defaults."""
    known, found = _known(spec, modalities), {}
    for dimension in space:
        default = known[dimension.key][1]
        text = text_of(list(default) if isinstance(default, tuple) else default)
        value = dimension.value(text)
        found[dimension.key] = text if value is None else dimension.text(value)
    return found


def own_range(key: str, kind: Any, default: Any) -> Dimension | None:
    """The values of a setting that its type and its default suggest; None where they suggest none.

    >>> from fsmm.heads.settings import Positive, Share
    >>> str(own_range("scale", Positive, 10.0)), str(own_range("share", Share, 0.3)), own_range("name", str, "a")
    ('scale 1 to 100 (log)', 'share 0 to 1', None)
    """
    inner, limits = unwrapped(kind)
    if typing.get_origin(inner) is Literal:
        return Dimension(key=key, choices=tuple(text_of(choice) for choice in typing.get_args(inner)))
    if inner is bool:
        return Dimension(key=key, choices=("true", "false"))
    if default is None or limits is None or inner not in (int, float):
        return None
    if inner is int:
        least = max(limits.low, 1)
        if default <= 0:
            return None
        low, high = max(math.ceil(default / 2), least), min(2 * default, limits.high)
        return Dimension(key=key, low=low, high=high, whole=True, log=high >= 16)
    if math.isfinite(limits.low) and math.isfinite(limits.high):
        inset = 0.1 * (limits.high - limits.low)
        low, high = limits.low + inset * limits.low_open, limits.high - inset * limits.high_open
        return Dimension(key=key, low=low, high=high)
    if default <= 0:
        return None
    low, high = (float(f"{default * factor:.{_DIGITS}g}") for factor in (0.1, 10))
    return Dimension(key=key, low=max(low, limits.low), high=min(high, limits.high), log=True)


def _known(spec: RunSpec, modalities: int) -> dict[str, tuple[Any, Any, bool]]:
    """The type and the default of every setting that a run has, and whether it is searched where none is named."""
    method, suffix = find(spec.method)
    cls = method.load()
    found = {f.name: (types_of(cls.Settings)[f.name], default_of(f), True) for f in fields(cls.Settings)}
    if may_learn(spec):
        recipe, types = cls.recipe, types_of(type(cls.recipe))
        for f in fields(recipe):
            found[RECIPE + f.name] = (types[f.name], getattr(recipe, f.name), f.name in _OF_RECIPE)
    if method.modalities == "one" and modalities > 1:
        usual = _OF_FUSION[spec.fusion or suffix or DEFAULT_FUSION]
        for f in fields(FusionSettings):
            found[WRAPPER + f.name] = (types_of(FusionSettings)[f.name], default_of(f), f.name in usual)
    return found


def _asked(text: str) -> tuple[str, str | None]:
    """The key and the range of a text of --search; None where it names no range."""
    key, sign, given = text.partition("=")
    return key.strip(), given.strip() if sign else None


def _given(
    spec: RunSpec, key: str, text: str | None, known: Mapping[str, tuple[Any, Any, bool]]
) -> Dimension:
    """The dimension of a key of --search."""
    if key not in known:
        raise unknown(f"setting of {spec.method}", key, [*known, ALL])
    if key in spec.settings:
        raise UsageError(f"{key} is fixed by --set and searched by --search; leave one out.")
    kind, default, _ = known[key]
    if text is None:
        if (own := own_range(key, kind, default)) is None:
            raise UsageError(
                f"{key} has no range of its own; give one: --search {key}=LOW:HIGH, or {key}=A,B for some values."
            )
        return own
    if ":" in text:
        return _numbers(spec, key, text, kind)
    choices = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if len(choices) < 2:
        raise UsageError(
            f"--search {key}={text} names fewer than two values; --set {key}={text or '...'} fixes one."
        )
    for choice in choices:
        check_settings(replace(spec, settings={key: choice}), [key])
    return Dimension(key=key, choices=choices)


def _numbers(spec: RunSpec, key: str, text: str, kind: Any) -> Dimension:
    """The range LOW:HIGH, or LOW:HIGH:log, of a setting that is a number."""
    ends, scale = text.split(":")[:2], text.split(":")[2:]
    inner: type[Any] = unwrapped(kind)[0]
    if inner not in (int, float) or scale not in ([], ["log"], ["linear"]):
        raise UsageError(f"--search {key}={text} is no range of {key}; write LOW:HIGH, LOW:HIGH:log or A,B.")
    for end in ends:
        check_settings(replace(spec, settings={key: end}), [key])
    low, high = (parse_value(key, end, kind) for end in ends)
    if not low < high or not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"--search {key}={text}: the lower end must lie below the upper one.")
    log = low > 0 and (scale == ["log"] or (not scale and high >= 16 * low))
    if scale == ["log"] and low <= 0:
        raise UsageError(f"--search {key}={text}: a logarithmic scale begins above 0.")
    return Dimension(key=key, low=low, high=high, whole=inner is int, log=log)


__all__ = ["ALL", "Dimension", "defaults", "own_range", "space_of"]
