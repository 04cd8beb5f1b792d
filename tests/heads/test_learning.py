"""The table of methods knows which settings give weights to a head that has none by default."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.registry import METHODS
from fsmm.heads.settings import types_of, unwrapped

STREAMS = {"frame": (4, 15), "audio": (4, 15)}  # 15 is a class token and two or four patches of tsdcm.
FREE = [name for name, method in METHODS.items() if method.regime == "none"]


@pytest.mark.parametrize("name", FREE)
def test_a_row_knows_whether_settings_add_weights(name: str) -> None:
    method = METHODS[name]
    streams = dict([*STREAMS.items()][: 1 if method.modalities == "one" else 2])
    words = None if method.words == "no" else 8
    inputs = Inputs(streams=streams, word_dim=words, base_classes=6, way=4)
    tried = 0
    for given in one_by_one(method.load().Settings):
        try:
            head = build_head(name, inputs, given)
        except UsageError:
            continue  # Such a value needs other inputs, or another setting beside it.
        assert method.learns(given) == any(p.requires_grad for p in head.parameters()), given
        tried += 1
    assert tried > 0


def one_by_one(cls: type[Any]) -> Iterator[dict[str, str]]:
    """The default settings, and those with another value of one choice, switch or count."""
    yield {}
    kinds = types_of(cls)
    for field in fields(cls):
        inner, _ = unwrapped(kinds[field.name])
        values: list[object] = []
        if typing.get_origin(inner) is typing.Literal:
            values = [value for value in typing.get_args(inner) if value != field.default]
        elif inner is bool:
            values = [not field.default]
        elif inner is int and isinstance(field.default, int) and math.isfinite(field.default):
            values = [0, 2, 4]
        for value in values:
            yield {field.name: str(value)}
