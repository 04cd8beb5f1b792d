"""Reading the values of options: there is one kind for each annotation that a field of an option may have.

Every reader takes the name of the option for errors, and a text of the command line or a value of a configuration file.
It raises UsageError for a value of the wrong form.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from ..episodes.protocol import Missing, Range, parse_range
from ..errors import UsageError, unknown
from .extent import Auto, Extent
from .spec import TrainMissing

Read = Callable[[str, Any], Any]
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}


class Kind(NamedTuple):
    """The form of the values of one annotation."""

    parsed: Any
    """The type that the parser of the command line returns."""
    read: Read
    """The reader of the parser's value, or of a file's value."""
    metavar: str | None = None
    """The word that the help shows for a value; None takes the parser's own word."""
    choices: tuple[str, ...] = ()
    """The only values that there are, where they are few."""


def kind_of(annotation: Any, default: Any = None) -> Kind:
    """The kind of values with this annotation. Raises TypeError for one that no option can have.

    default: the default of the field; a field that may be None but is not by default takes the text ``none`` for None.
    """
    if get_origin(annotation) is Annotated:
        return kind_of(get_args(annotation)[0], default)
    if annotation == Range:
        return Kind(str, read_range, "N|N-M")
    if annotation == TrainMissing:
        return Kind(list[str], read_train_missing, "auto|none|MODALITY=RATE")
    if annotation == Extent:
        return Kind(str, read_extent, "N|auto[:POINTS]")
    if get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
        inner = tuple(part for part in get_args(annotation) if part is not type(None))
        kind = kind_of(Union[inner])
        return kind._replace(read=_optional(kind.read, text_none=default is not None))
    if annotation in _PLAIN:
        return Kind(annotation, _PLAIN[annotation])
    if get_origin(annotation) is Literal:
        choices = [str(choice) for choice in get_args(annotation)]
        return Kind(str, _choice(choices), f"[{'|'.join(choices)}]", tuple(choices))
    if get_origin(annotation) is list and get_args(annotation) == (str,):
        return Kind(list[str], lambda label, value: list(read_names(label, value)))
    if get_origin(annotation) is tuple:
        return _tuple_kind(get_args(annotation))
    if get_origin(annotation) in (Mapping, dict):
        values = get_args(annotation)[1]
        return Kind(list[str], pairs_reader(values), pair_form(values))
    raise TypeError(f"no option can be made of the annotation {annotation}")


def read_text(label: str, value: Any) -> str:
    """The value, if it is a text."""
    if not isinstance(value, str):
        raise UsageError(f"{label} takes a text, not {value!r}.")
    return value


def read_whole(label: str, value: Any) -> int:
    """The whole number that the value states."""
    try:
        if isinstance(value, (bool, float)):
            raise ValueError
        return int(value)
    except (ValueError, TypeError):
        raise UsageError(f"{label} takes a whole number, not {value!r}.") from None


def read_number(label: str, value: Any) -> float:
    """The number that the value states."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (ValueError, TypeError):
        raise UsageError(f"{label} takes a number, not {value!r}.") from None


def read_flag(label: str, value: Any) -> bool:
    """The value, if it is true or false."""
    if not isinstance(value, bool):
        raise UsageError(f"{label} takes true or false, not {value!r}.")
    return value


def read_path(label: str, value: Any) -> Path:
    """The path that the value states, with ``~`` as the user's folder."""
    if not isinstance(value, (str, Path)):
        raise UsageError(f"{label} takes a path, not {value!r}.")
    return Path(value).expanduser()


def read_range(label: str, value: Any) -> Range:
    """The value of 5, "5" or "5-10", or of a list of two whole numbers."""
    if isinstance(value, list) and len(value) == 2:
        return read_whole(label, value[0]), read_whole(label, value[1])
    return parse_range(label, value) if isinstance(value, str) else read_whole(label, value)


def read_extent(label: str, value: Any) -> Extent:
    """The value of a whole number, "auto" or "auto:0.5"."""
    if isinstance(value, str) and value.startswith("auto"):
        return Auto.parse(value)
    return read_whole(label, value)


def read_names(label: str, value: Any) -> tuple[str, ...]:
    """The names of ``a,b`` or of a list of names."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise UsageError(f"{label} takes names separated by commas, not {value!r}.")
    return tuple(part.strip() for part in parts if part.strip())


def read_missing(label: str, value: Any) -> tuple[Missing, ...]:
    """The rates of texts such as audio=0.5@query, or of tables with modality, rate and side."""
    return tuple(_missing(label, entry) for entry in (value if isinstance(value, list) else [value]))


def read_train_missing(label: str, value: Any) -> TrainMissing:
    """The value of auto, of none, or of rates as ``read_missing`` takes them."""
    texts = value if isinstance(value, list) else [value]
    if texts in (["auto"], ["none"]):
        return "auto" if texts == ["auto"] else ()
    return read_missing(label, value)


def _missing(label: str, entry: Any) -> Missing:
    if isinstance(entry, str):
        return Missing.parse(entry)
    keys = [field.name for field in fields(Missing)]
    if not isinstance(entry, dict) or not {"modality", "rate"} <= entry.keys() <= set(keys):
        raise UsageError(f"{label} takes texts such as audio=0.5@query, or tables of {', '.join(keys)}.")
    return Missing.parse(f"{entry['modality']}={entry['rate']}@{entry.get('side', 'both')}")


_PLAIN: dict[Any, Read] = {
    str: read_text,
    int: read_whole,
    float: read_number,
    bool: read_flag,
    Path: read_path,
}


def _optional(read: Read, *, text_none: bool) -> Read:
    """A reader that also takes a file's null and, with ``text_none``, the text none; an empty tuple is read as None."""

    def read_it(label: str, value: Any) -> Any:
        if value is None or (text_none and value == "none"):
            return None
        found = read(label, value)
        return None if found == () else found

    return read_it


def _choice(choices: Sequence[str]) -> Read:
    def read(label: str, value: Any) -> str:
        if value not in choices:
            raise unknown(f"value of {label}:", str(value), choices)
        return str(value)

    return read


def _tuple_kind(inner: tuple[Any, ...]) -> Kind:
    if inner == (Missing, ...):
        return Kind(list[str], read_missing, "MODALITY=RATE[@SIDE]")
    if inner == (str, ...):
        return Kind(str, read_names, "NAME,...")
    if set(inner) == {int}:
        return Kind(str, functools.partial(_whole_numbers, len(inner)), ",".join("N" * len(inner)))
    raise TypeError(f"no option can be made of a tuple of {inner}")


def _whole_numbers(count: int, label: str, value: Any) -> tuple[int, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    try:
        numbers = tuple(read_whole(label, part) for part in parts)
    except (UsageError, TypeError):
        numbers = ()
    if len(numbers) != count:
        raise UsageError(
            f"{label} takes {_NUMBER_WORDS[count]} whole numbers separated by commas, not {value!r}."
        )
    return numbers


def pairs_reader(values: Any) -> Read:
    """A reader of repeated ``key=value`` texts, or of a table, whose values are str, Path or tuple[str, ...].

    A key may occur several times where the values are tuples. Only a value of type str may be empty.
    """

    def read(label: str, value: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, text in _entries(label, value, pair_form(values)):
            if not key or not (text or (values is str and text is not None)):
                given = key if text is None else f"{key}={text}"
                raise UsageError(f"{label} {given!r} is not of the form {pair_form(values)}.")
            if get_origin(values) is tuple:
                found[key] = (*found.get(key, ()), *read_names(label, text))
            else:
                found[key] = read_path(label, text) if values is Path else text
        return found

    return read


def pair_form(values: Any) -> str:
    """The form of a pair with such values, for help and errors."""
    return {str: "key=value", Path: "NAME=PATH"}.get(values, "KEY=NAME")


def _entries(label: str, value: Any, form: str) -> list[tuple[str, str | None]]:
    """The keys and texts of a table, or of texts ``key=value``; the text is None where there is no equals sign."""
    if isinstance(value, dict):
        return [(str(key), text_of(entry)) for key, entry in value.items()]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{label} takes a table, or texts of the form {form}, not {value!r}.")
    split = [text.partition("=") for text in texts]
    return [(key.strip(), text.strip() if equals else None) for key, equals, text in split]


def text_of(value: Any) -> str:
    """The text of the command line that states a file's value."""
    if isinstance(value, list):
        return ",".join(map(text_of, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
