"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NO_PART_OF_IT = {"tests", "scripts", "benchmarks", "docs", "examples", "build", "dist"}


def modules_with_examples() -> list[str]:
    """Dotted names of the package's modules whose source shows an example."""
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0].startswith(".") or parts[0] in NO_PART_OF_IT or ">>> " not in path.read_text():
            continue
        found.append(".".join(("fsmm", *(parts[:-1] if parts[-1] == "__init__" else parts))))
    return found


MODULES = modules_with_examples()


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0


def test_at_least_ten_objects_have_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    shown = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(shown) >= 10
