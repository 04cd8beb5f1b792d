"""The form of tables that are read again, by which one that was edited, or is of another program, is told from ours."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Stored(BaseModel):
    """A table that a release of fsmm wrote: values have their kinds, and keys that are not named here are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


def fault_of(value: Any, form: type[BaseModel]) -> str:
    """Why a value does not have a form, in a few words; empty where it has.

    >>> class Person(Stored):
    ...     name: str
    >>> fault_of({"name": 3}, Person), fault_of({}, Person), fault_of({"name": "Ada", "age": 36}, Person)
    ('name: Input should be a valid string', 'name: Field required', '')
    """
    try:
        form.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        return f"{place}: {first['msg']}" if place else str(first["msg"])
    return ""
