"""Settings say what they mean and which values they take, and are checked in one place."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest

from fsmm.errors import UsageError
from fsmm.heads.multimodal.fusion import FusionSettings
from fsmm.heads.registry import METHODS
from fsmm.heads.settings import (
    Count,
    Positive,
    Recipe,
    Settings,
    Share,
    docs_of,
    make_settings,
    parse_value,
    types_of,
    values_of,
)

KINDS: dict[str, type[Any]] = {
    **{name: method.load().Settings for name, method in METHODS.items()},
    "recipe": Recipe,
    "fusion": FusionSettings,
}


@dataclass(frozen=True)
class Example(Settings):
    """Settings of every kind."""

    rule: Literal["mean", "median"] = "mean"
    """The rule."""
    share: Share = 0.5
    """A share."""
    sizes: tuple[Count, ...] = (2, 3)
    """Some sizes."""
    rate: Positive | None = None
    """A rate, or none."""
    loud: bool = False
    """Whether it is loud."""


@pytest.mark.parametrize("name", KINDS)
def test_every_field_has_a_docstring_of_its_own(name: str) -> None:
    docs = docs_of(KINDS[name])
    for field in fields(KINDS[name]):
        text = docs.get(field.name, "")
        assert len(text) > 10, f"{name}.{field.name} says {text!r}"
        assert text[0].isupper() or not text[0].isalpha(), f"{name}.{field.name}"
        assert text.endswith("."), f"{name}.{field.name}"


@pytest.mark.parametrize("name", KINDS)
def test_defaults_are_allowed_and_come_back_from_their_texts(name: str) -> None:
    values, types = KINDS[name](), types_of(KINDS[name])
    for field in fields(KINDS[name]):
        value = getattr(values, field.name)
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert parse_value(field.name, text, types[field.name]) == value, field.name
        assert values_of(types[field.name]), field.name


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("rule", "medain", "median"),
        ("share", "1.5", r"\[0, 1\]"),
        ("share", "-0.1", r"\[0, 1\]"),
        ("sizes", "2,0", "1 or more"),
        ("rate", "0", "above 0"),
        ("share", "half", "not a float"),
        ("loud", "perhaps", "not a bool"),
        ("shares", "1", "share"),
    ],
)
def test_a_value_that_is_not_allowed_is_one_sentence_that_says_what_is(
    key: str, text: str, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        make_settings(Example, {key: text}, "the example")


def test_texts_are_read_as_the_types_say() -> None:
    given = {"rule": "median", "share": "1", "sizes": "4", "rate": "none", "loud": "yes"}
    assert make_settings(Example, given, "the example") == Example("median", 1.0, (4,), None, True)


def test_values_are_described_as_a_person_reads_them() -> None:
    types = types_of(Example)
    assert {key: values_of(kind) for key, kind in types.items()} == {
        "rule": "mean | median",
        "share": "float in [0, 1]",
        "sizes": "int 1 or more, several by commas",
        "rate": "float above 0, or none",
        "loud": "true | false",
    }
