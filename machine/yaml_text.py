"""Reading YAML: its content, and the line of each value, of texts that stand for no more than memory holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .trees import tree_size

Lines = dict[tuple[Any, ...], int]
"""The line of each value of a text, by path."""
_VALUES, _LOCATED_VALUES = 10_000_000, 100_000


def yaml_value(text: str) -> Any:
    """The content of a YAML text. Raises ValueError where it is not valid, or a table has one key twice."""
    return _value_and_node(text, most=_VALUES)[0]


def located_yaml(text: str) -> tuple[Any, Lines]:
    """The content of a YAML text, and the line of each of its values. Raises ValueError where it is not valid.

    The lines, which begin at 1, are given by path: the keys and positions that lead from the top to the value. The line
    of an entry of a table is that of its key.

    >>> located_yaml("a: [1, {b: 2}]")
    ({'a': [1, {'b': 2}]}, {(): 1, ('a',): 1, ('a', 0): 1, ('a', 1): 1, ('a', 1, 'b'): 1})
    """
    value, node = _value_and_node(text, most=_LOCATED_VALUES)
    return value, {} if node is None else dict(_lines(node, ()))


def _value_and_node(text: str, *, most: int) -> tuple[Any, Any]:
    """The content of a YAML text, of at most so many values, and its node. Raises ValueError where it is not valid."""
    import yaml

    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, None
        # An alias is a reference to a node, so that a few lines can stand for more values than any memory holds.
        if tree_size(node, _parts) > most:
            raise ValueError(f"it stands for more than {most:,} values")
        _refuse_repeated_keys(node, set())
        return loader.construct_document(node), node
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    finally:
        if loader is not None:
            loader.dispose()


def _refuse_repeated_keys(node: Any, seen: set[int]) -> None:
    """Raise ValueError for a table with one key twice, of which the reader would keep the last without a word.

    seen: the nodes that were looked at; aliases refer to one node from several places.
    """
    parts = _parts(node)
    if isinstance(parts, int) or id(node) in seen:
        return
    seen.add(id(node))
    keys = [entry[0] for entry in node.value if isinstance(entry, tuple)]
    first: dict[tuple[str, str], Any] = {}
    for key in keys:
        if isinstance(key.value, str) and first.setdefault((key.tag, key.value), key) is not key:
            lines = [each.start_mark.line + 1 for each in (first[key.tag, key.value], key)]
            raise ValueError(f"one table has the key {key.value!r} twice, in lines {lines[0]} and {lines[1]}")
    for part in parts:
        _refuse_repeated_keys(part, seen)


def _lines(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], int]]:
    """The path and line of a YAML node and of all within it."""
    yield path, node.start_mark.line + 1
    if isinstance(node.value, str):
        return
    for place, entry in enumerate(node.value):
        if isinstance(entry, tuple):
            key, value = entry
            inner = (*path, key.value if isinstance(key.value, str) else place)
            yield from _lines(value, inner)
            yield inner, key.start_mark.line + 1
        else:
            yield from _lines(entry, (*path, place))


def _parts(node: Any) -> list[Any] | int:
    """The nodes within a YAML node, or 1 for a scalar."""
    if isinstance(node.value, str):
        return 1
    return [part for entry in node.value for part in (entry if isinstance(entry, tuple) else (entry,))]
