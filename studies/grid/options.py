"""The options of a run that a study file may set, and the reading of their values.

They are the options of ``fsmm episode-eval`` by their names in Python, and ``settings.KEY``, ``train.KEY`` and
``fusion.KEY`` for what ``--set`` sets there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from ...episodes.protocol import Protocol
from ...errors import UsageError, unknown
from ...heads.registry import find
from ...runs.job import Job, Place
from ...runs.kinds import kind_of, text_of
from ...runs.spec import RunSpec

SETTINGS = "settings."
"""The prefix of the head's settings among the options; those of recipe and wrapper follow it with their own."""
ALL, EACH, SUBSETS, SAME = "all", "each", "subsets", "same"
"""In place of modalities: all that are held, each alone, every selection, and those of the supports (for queries).

``all`` is also every method that can run, and ``each`` every class split."""
MODALITY_OPTIONS = ("streams", "modalities", "support_modalities", "query_modalities", "train_modalities")
MISSING_OPTIONS = ("missing", "noisy", "train_missing")
_NO_OPTIONS = ("spec", "place", "retrain", "episodes_file")
_OF = ((RunSpec, ("protocol", "settings")), (Protocol, ("replay",)), (Job, _NO_OPTIONS))


def _fields() -> Iterator[tuple[str, Any, Any]]:
    """The name, annotation and default of every option but the settings."""
    for cls, without in _OF:
        hints = get_type_hints(cls)
        for field in fields(cls):
            if field.name not in without:
                make = field.default_factory
                yield field.name, hints[field.name], field.default if make is MISSING else make()
    yield "dataset", get_type_hints(Place)["dataset"], None


JOB_OPTIONS = tuple(f.name for f in fields(Job) if f.name not in _NO_OPTIONS)
"""The options of a run that belong to neither its specification nor its place."""
DEFAULTS = {name: default for name, _, default in _fields()}
"""The default of each option; that of ``method`` is missing."""
_KINDS = {name: kind_of(hint, None if default is MISSING else default) for name, hint, default in _fields()}


def option_named(key: str) -> str:
    """The full name of an option. Raises UsageError for an unknown one, naming the nearest.

    >>> option_named("k-shot"), option_named("train.steps")
    ('k_shot', 'settings.train.steps')
    """
    name = str(key)
    if name.startswith(("train.", "fusion.")):
        return SETTINGS + name
    if name.startswith(SETTINGS) and name != SETTINGS:
        return name
    name = name.replace("-", "_")
    if name not in _KINDS:
        raise unknown("option of a run", name, [*_KINDS, "settings.KEY", "train.KEY", "fusion.KEY"])
    return name


def read_option(name: str, value: Any) -> Any:
    """The value of an option from a value of a file or a text of the command line.

    name: the option's full name. Raises UsageError for a value that the option cannot have.
    """
    if name.startswith(SETTINGS):
        return text_of(value)
    if value in (None, "none") and name in MISSING_OPTIONS:
        return ()
    if value == "none" and DEFAULTS[name] is None:
        return None
    if name in MODALITY_OPTIONS and value == ALL:
        return None
    if name in MODALITY_OPTIONS and isinstance(value, list) and len({*map(str, value)}) != max(len(value), 1):
        raise UsageError(
            f"{name} names {'one of them twice' if value else 'nothing'}; name each once, or use all."
        )
    found = _KINDS[name].read(name, value)
    if name == "method" and found != ALL:
        find(found)
    return found


def read_options(table: Any) -> dict[str, Any]:
    """The options of a table, by their full names; ``settings`` may be a table of its own.

    Raises OptionError for the first key or value that is not right.
    """
    if not isinstance(table, Mapping):
        raise OptionError((), f"options are a table of keys and values, not {value_text(table)}.")
    found = {}
    for key, value in table.items():
        inner = value if key == "settings" else {key: value}
        if not isinstance(inner, Mapping):
            raise OptionError((key,), f"settings are a table of keys and values, not {value_text(inner)}.")
        for part, entry in inner.items():
            path = (key, part) if key == "settings" else (key,)
            try:
                name = option_named(SETTINGS + str(part) if key == "settings" else part)
                if name in found:
                    raise twice(name)
                found[name] = read_option(name, entry)
            except UsageError as error:
                raise OptionError(path, str(error)) from None
    return found


def twice(name: str) -> UsageError:
    """The error of an option that one table names in two spellings; name: its full name."""
    return UsageError(f"{name.removeprefix(SETTINGS)} is named twice, in two spellings; name it once.")


class OptionError(UsageError):
    """A key or value of a table of options that is not right; ``path`` leads to it from the table."""

    def __init__(self, path: tuple[Any, ...], sentence: str) -> None:
        super().__init__(sentence)
        self.path = path


def value_text(value: Any) -> str:
    """A short text of a value for a sentence."""
    return "nothing" if value is None else f"{value!r}"[:60]
