"""The docstrings of a dataclass's fields: the text that stands below a field in the source."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import sys
from typing import Any


def field_docs(cls: type[Any]) -> dict[str, str]:
    """The docstring below each field of a class of a module and of its bases, by the field's name.

    A field without a docstring is left out, and so is every field of a class whose source cannot be read.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        found |= _documented(base.__module__).get(base.__qualname__, {})
    return found


@functools.cache
def _documented(module: str) -> dict[str, dict[str, str]]:
    """The docstrings of the fields of a module's classes, by class name and then by field name."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):  # The module has no source, as builtins has none.
        return {}
    return {node.name: _below(node.body) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below(body: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for field, after in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(after.value.value)
    return found
