"""JSON that any reader takes: what JSON cannot state, such as NaN and the infinities, is written as null."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(
    value: Any, *, indent: int | None = None, sort_keys: bool = False, ascii_only: bool = True
) -> str:
    """One JSON document that states a value; see ``json_values`` for what becomes of values that JSON does not have.

    >>> json_text({"best": float("nan"), "loss": [0.5, float("inf")]})
    '{"best": null, "loss": [0.5, null]}'
    """
    return json.dumps(
        json_values(value), indent=indent, sort_keys=sort_keys, ensure_ascii=ascii_only, allow_nan=False
    )


def json_values(value: Any) -> Any:
    """The value in the types that JSON has.

    A figure that is not finite becomes None; arrays and scalars of numpy and torch become lists and numbers; tuples and
    sets become lists; anything else that JSON does not have, such as a path, becomes its text.

    >>> from pathlib import PurePosixPath
    >>> json_values((1, PurePosixPath("a/b"), float("-inf")))
    [1, 'a/b', None]
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_key(key): json_values(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_values(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted((json_values(inner) for inner in value), key=str)
    if callable(values_of := getattr(value, "tolist", None)):
        return json_values(values_of())
    return str(value)


def _key(key: Any) -> str | int | float | bool | None:
    """A key that JSON can have; other keys become texts."""
    return key if key is None or isinstance(key, (str, int, float, bool)) else str(key)
