"""The docstrings of fields are read from the source."""

from __future__ import annotations

import collections
from dataclasses import dataclass

from fsmm.machine.field_docs import field_docs


@dataclass
class Base:
    first: int = 1
    """The first."""
    bare: int = 2


@dataclass
class Derived(Base):
    """A class docstring is no field's."""

    second: int = 3
    """The second,
    on two lines."""
    third: int = 4
    number = 5
    """This is no field."""


def test_each_field_has_the_text_below_it_and_that_of_its_base() -> None:
    assert field_docs(Base) == {"first": "The first."}
    assert field_docs(Derived) == {"first": "The first.", "second": "The second,\non two lines."}


def test_a_class_without_a_source_has_no_docs() -> None:
    assert field_docs(type("Made", (), {})) == {}
    assert field_docs(collections.deque) == {}
