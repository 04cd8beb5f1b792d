"""The size of nested containers that share parts, which a few bytes can make larger than any memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Parts = Callable[[Any], Iterable[Any] | int]


def container_parts(item: Any) -> Iterable[Any] | int:
    """The parts of a dict, list, tuple or set; 1, the size of a leaf, for anything else."""
    if isinstance(item, dict):
        return [part for pair in item.items() for part in pair]
    return item if isinstance(item, (list, tuple, set, frozenset)) else 1


def tree_size(value: Any, parts_of: Parts = container_parts) -> int:
    """The number of leaves and containers of a tree.

    A part that is referred to several times counts each time, as it would if the tree were written out, but is visited
    once only. parts_of: gives the parts of a container, or the size of a leaf. Raises ValueError where a container
    holds itself or is nested too deeply.

    >>> row = [0.0] * 10
    >>> tree_size([row] * 10)
    111
    """
    sizes: dict[int, int] = {}
    entered: set[int] = set()

    def measure(item: Any) -> int:
        if (known := sizes.get(id(item))) is not None:
            return known
        parts = parts_of(item)
        if isinstance(parts, int):
            return parts
        if id(item) in entered:
            raise ValueError("it holds a container that contains itself")
        entered.add(id(item))
        sizes[id(item)] = size = 1 + sum(map(measure, parts))
        return size

    try:
        return measure(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
