"""Typed settings of heads, read from key=value texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import UsageError, unknown


@dataclass(frozen=True)
class Settings:
    """A head's settings; every head has a frozen subclass. ``--set key=value`` sets one."""


@dataclass(frozen=True)
class Recipe:
    """How a head is trained; a head's default is its published recipe, scaled to cached features.

    steps: optimiser steps, each over ``tasks`` episodes of ``way`` classes (None: as evaluated), ``shot`` supports
        (None: as evaluated) and ``query`` queries a class; for heads of the batch regime ``tasks`` clips.
    optimiser: "adam", "adamw" or "sgd". decay: the rate is multiplied by this every ``decay_every`` steps (0: never).
    clip_norm, clip_value: gradient clipping (0: none).
    evaluate_every: steps between evaluations on val classes; ``patience`` of them without a gain ends training.
        The untrained head is the first candidate.
    mix: share of training classes replaced by blends of two base classes, against memorising few of them.
    """

    steps: int = 1000
    tasks: int = 8
    way: int | None = None
    shot: int | None = None
    query: int = 10
    optimiser: str = "adam"
    rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    decay: float = 0.5
    decay_every: int = 0
    clip_norm: float = 0.0
    clip_value: float = 0.0
    evaluate_every: int = 50
    evaluate_episodes: int = 400
    patience: int = 8
    mix: float = 0.0


def make_settings(cls: type[Any], given: Mapping[str, str], what: str) -> Any:
    """Settings (or a Recipe) from ``key=value`` texts, typed as the dataclass's defaults.

    Raises UsageError for an unknown key or a value that does not parse.
    """
    return update_settings(cls(), given, what)


def update_settings(current: Any, given: Mapping[str, str], what: str) -> Any:
    """``current`` with some fields set from texts."""
    known = {f.name for f in fields(current)}
    for key in given:
        if key not in known:
            raise unknown(f"setting of {what}", key, known)
    return replace(current, **{key: _parse(key, text, getattr(current, key)) for key, text in given.items()})


def _parse(key: str, text: str, default: Any) -> Any:
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                text.lower()
            ]
        if isinstance(default, tuple):
            kind = type(default[0]) if default else str
            return tuple(kind(part) for part in text.split(",") if part)
        if default is None or isinstance(default, int):
            return None if text.lower() == "none" else int(text)
        return type(default)(text)
    except (ValueError, KeyError):
        kind_name = "int" if default is None else type(default).__name__
        raise UsageError(f"Setting {key}={text!r} is not a {kind_name}.") from None
