"""The form of a study file: pydantic checks its shape, and the readers of a run's options check every value.

A study has blocks. A block has ``fixed`` options, which all its runs have; ``variants``, tables of options that change
together; and a ``grid``, whose options take every combination of the values listed. ``exclude`` drops the runs that
have all of an entry's values, and ``include`` adds runs. ``trained_as`` says under which options heads are trained
where these are not the run's own, so that one trained head serves many tests. ``studies`` names other study files whose
blocks are the study's, too (included.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, ValidationError
from pydantic import Field as Checked
from pydantic_core import ErrorDetails, PydanticCustomError

from ...errors import UsageError, unknown
from ...machine.files import read_text, refuse_special
from ...machine.yaml_text import Lines, located_yaml
from .options import OptionError, option_named, read_option, read_options, twice, value_text

_SHOWN = 5  # The mistakes of a file that are told at once.
_BYTES = 1 << 20  # A study file is written by hand; reading a larger file would take minutes.


def _options(table: Any) -> dict[str, Any]:
    try:
        return read_options(table)
    except OptionError as error:
        raise _custom(error.path, str(error)) from None


def _variant(table: Any) -> dict[str, Any]:
    """A variant's options, with its label under ``label`` where it has one."""
    if not isinstance(table, Mapping):
        return _options(table)
    try:
        label = {"label": _line(table["label"])} if "label" in table else {}
    except PydanticCustomError as error:
        raise _custom(("label",), error.message()) from None
    return {**_options({key: value for key, value in table.items() if key != "label"}), **label}


def _line(value: Any) -> str:
    """A text of one line that a table can show; a number stands for its text."""
    text = str(value).strip()
    if isinstance(value, (list, dict)) or value is None or not text.isprintable():
        raise _custom((), f"a text of one line is needed here, not {value_text(value)}.")
    return text


def _grid(table: Any) -> dict[str, list[Any]]:
    """The values of each option of a grid; a single value stands for a list of one."""
    if not isinstance(table, Mapping):
        raise _custom((), "a grid is a table from options to lists of values.")
    found: dict[str, list[Any]] = {}
    for key, values in table.items():
        listed = values if isinstance(values, list) else [values]
        path: tuple[Any, ...] = (key,)
        if not listed:
            raise _custom(path, f"the grid lists no value of {key}; name one, or leave the key out.")
        try:
            name = option_named(key)
            if name in found:
                raise twice(name)
            found[name] = []
            for place, value in enumerate(listed):
                path = (key, place) if isinstance(values, list) else path
                found[name].append(read_option(name, value))
        except UsageError as error:
            raise _custom(path, str(error)) from None
    return found


def _custom(path: tuple[Any, ...], sentence: str) -> PydanticCustomError:
    """An error of pydantic with a sentence of ours; path: leads to the fault from the value that is checked."""
    return PydanticCustomError("option", "{sentence}", {"sentence": sentence, "path": path})


def _entry(entry: Any) -> Any:
    """The table that a text among the included studies stands for."""
    return {"file": entry} if isinstance(entry, str) else entry


Options = Annotated[dict[str, Any], BeforeValidator(_options)]
Variant = Annotated[dict[str, Any], BeforeValidator(_variant)]
Grid = Annotated[dict[str, list[Any]], BeforeValidator(_grid)]
Line = Annotated[str, BeforeValidator(_line)]
Name = Annotated[str, Checked(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ +-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Block(_Model):
    """A part of a study, whose runs are made of one grid."""

    name: Name
    """The name of the block."""
    title: Line = ""
    """The sentence that a report shows above the block."""
    fixed: Options = {}
    """The options that all runs of the block have."""
    variants: list[Variant] = []
    """Tables of options that change together, each with a label if it has one."""
    grid: Grid = {}
    """The values of options of which every combination is run."""
    include: list[Variant] = []
    """Runs beside the grid: their options on top of ``fixed``."""
    exclude: list[Options] = []
    """Runs of the grid that have all values of one of these tables are left out."""
    trained_as: Options = {}
    """The options under which heads are trained, where they are not the run's own."""
    optional: bool = False
    """Whether the block is left out, which the sweep says, where the cache lacks its data set or its streams."""
    chart: Literal["none", "bars"] = "none"
    """How a report draws the block beside its tables: bars has a bar for each run, with its interval."""


class PublishedRow(_Model):
    """Published figures of one method."""

    label: Line
    """The label of the variant that they belong to."""
    k_shot: int
    """The number of supports a class."""
    values: dict[str, FiniteFloat]
    """The accuracies in per cent, by data set."""


class Published(_Model):
    """Figures that a paper states, which are shown in columns of their own."""

    source: Line
    """The paper."""
    rows: list[PublishedRow]
    """The figures."""


class Included(_Model):
    """Another study whose blocks belong to the study, with all that its own file says of them."""

    file: Line
    """The path of its file, from the folder of the file that names it, or the name of a preset."""
    name: Name | None = None
    """What its blocks are called by: block B is ``NAME.B``; None keeps their names."""
    set: Options = {}
    """Options that win over those of its file."""


Entry = Annotated[Included, BeforeValidator(_entry)]


class StudyFile(_Model):
    """The content of a study file."""

    name: Name
    """The name of the study."""
    title: Line = ""
    """The headline of a report."""
    description: str = ""
    """What the study shows, in a few sentences."""
    fixed: Options = {}
    """The options that all runs of the study have."""
    free_rows: bool = False
    """Whether rows that need no training are added for each task, on the streams that the study uses."""
    blocks: list[Block] = []
    """The blocks, each with a name of its own."""
    studies: list[Entry] = []
    """Other studies whose blocks are added to these."""
    published: Published | None = None
    """Figures that a paper states."""


@dataclass(frozen=True, kw_only=True)
class StudyDocument:
    """A study file that was read, with what is needed to name places in it."""

    file: StudyFile
    """The content of the file, with every value read."""
    raw: Mapping[str, Any]
    """The content as it was written."""
    where: str
    """The name of the file in sentences."""
    path: Path | None = None
    """The file; None for a study that was read from none."""
    lines: Lines = field(default_factory=dict)
    """The line of each value, by path."""

    def error(self, path: tuple[Any, ...], sentence: str) -> UsageError:
        """The error of a fault at a path, which names the line of the nearest value that has one."""
        line = _line_at(self.lines, path)
        return UsageError(f"{self.where}{'' if line is None else f', line {line}'}: {sentence}")


def read_study_file(path: Path, where: str | None = None) -> StudyDocument:
    """The study that a YAML file describes. Raises UsageError, with lines, where it cannot be read or is not right.

    where: the name of the file in sentences (default: without its folder).
    """
    refuse_special(path, "study file")
    try:
        raw, lines = located_yaml(read_text(path, most=_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"The study file {str(path)!r} cannot be read ({why}).") from None
    if not isinstance(raw, dict):
        raise UsageError(f"The study file {str(path)!r} must hold a table of keys and values.")
    return checked({"name": path.stem, **raw}, where=where or path.name, lines=lines, path=path)


def checked(
    raw: Mapping[str, Any], *, where: str, lines: Lines | None = None, path: Path | None = None
) -> StudyDocument:
    """The study with this content. Raises UsageError, which names every mistake with its line."""
    lines = lines or {}
    try:
        file = StudyFile.model_validate(raw)
    except ValidationError as error:
        told = [_mistake(found, lines) for found in error.errors(include_url=False)]
        more = [f"There are {len(told) - _SHOWN} more mistakes."] if len(told) > _SHOWN else []
        raise UsageError(f"{where}, {' '.join([*told[:_SHOWN], *more])}") from None
    names = [block.name for block in file.blocks]
    document = StudyDocument(file=file, raw=raw, where=where, path=path, lines=lines)
    if not (file.blocks or file.studies):
        raise document.error(("blocks",), "a study has blocks, or names other studies under `studies`.")
    for place, name in enumerate(names):
        if name in names[:place]:
            raise document.error(("blocks", place, "name"), f"two blocks have the name {name!r}.")
    return document


def _mistake(found: ErrorDetails, lines: Lines) -> str:
    """The sentence of one error of pydantic, with its line."""
    path, about = tuple(found["loc"]), found.get("ctx", {})
    sentence = found["msg"]
    if found["type"] == "option":
        path, sentence = (*path, *about["path"]), about["sentence"]
    elif found["type"] == "extra_forbidden":
        sentence = str(unknown("key", str(path[-1]), _keys_at(path[:-1])))
    elif found["type"] == "missing":
        sentence = f"{path[-1]!r} is missing."
    else:
        told = _PLAIN.get(found["type"], f"{sentence[0].lower()}{sentence[1:]}")
        sentence = f"{'.'.join(map(str, path))}: {told}."
    line = _line_at(lines, path)
    return sentence if line is None else f"line {line}: {sentence}"


_PLAIN = {
    "model_type": "a table of keys and values is needed here",
    "dict_type": "a table of keys and values is needed here",
    "list_type": "a list is needed here",
    "string_type": "a text is needed here",
    "int_parsing": "a whole number is needed here",
    "float_parsing": "a number is needed here",
    "finite_number": "a finite number is needed here",
    "bool_parsing": "true or false is needed here",
    "string_pattern_mismatch": (
        "a name has letters, digits, '.', '_', '+', '-' and spaces, 64 at most, and begins with a letter or digit"
    ),
}
"""What is needed in place of a value, by the type of pydantic's error, where its own words are those of a program."""


def _keys_at(path: tuple[Any, ...]) -> list[str]:
    """The keys that the table at a path may have."""
    inside = Published if len(path) == 1 else PublishedRow
    models = {"published": inside, "blocks": Block, "studies": Included}
    model: type[BaseModel] = models.get(str(path[0]), StudyFile) if path else StudyFile
    return list(model.model_fields)


def _line_at(lines: Lines, path: tuple[Any, ...]) -> int | None:
    """The line of the value at a path, or of the innermost value around it; None for a study without lines."""
    return next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)
