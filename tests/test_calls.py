"""Calls that read as sentences: what a call means can be seen without the signature."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_POSITIONAL = 4


def long_calls(text: str) -> Iterator[str]:
    """The functions that are called with more positional arguments than a reader keeps apart."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL:
            yield f"line {node.lineno}: {ast.unparse(node.func)}"


@pytest.mark.parametrize("package", ["runs", "studies", "commands", "machine"])
def test_calls_with_many_arguments_name_them(package: str) -> None:
    found = [
        f"{p.name}, {call}" for p in (ROOT / package).rglob("*.py") for call in long_calls(p.read_text())
    ]
    assert found == []


def test_long_calls_are_seen() -> None:
    assert list(long_calls("f(1, 2, 3, 4)\ng(1, 2, 3, 4, e=5)")) == []
    assert list(long_calls("f(1, 2,\n  g.h(1, 2, 3, 4, 5))")) == ["line 2: g.h"]
