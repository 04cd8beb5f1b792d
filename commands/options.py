"""Command-line options made from dataclasses, and configuration files that give the same options.

A field of a dataclass is an option: its name is the flag, the docstring below it is the help, its annotation determines
how a text is read, and its default is the option's. A field that is itself a dataclass contributes its own fields.
``--config FILE`` takes any option from a JSON or YAML file, by the field's name; a flag on the command line wins.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Optional, cast, get_type_hints

import typer

from ..errors import UsageError, unknown
from ..machine.field_docs import field_docs
from ..machine.files import read_table
from ..runs.kinds import Kind, kind_of
from .completion import Completer, one_of

Body = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option of a command."""

    key: str
    """The option's name in Python and in a file."""
    flag: str
    """The option's name on the command line."""
    kind: Kind
    """The form of the option's values."""
    help: str = ""
    """The text of the option in the command's help."""
    default: Any = None
    """The default of the field, which the help shows."""
    required: bool = False
    """Whether a value must be given."""
    group: str | None = None
    """The section of the command's help that the option stands in."""
    complete: Completer | None = None
    """What the shell completes values by."""
    argument: bool = False
    """Whether the value stands on the command line by itself, without the flag."""
    hidden: bool = False
    """Whether the help leaves it out, since files that the program writes give it, and people do not."""

    def _argument(self) -> inspect.Parameter:
        """The parameter of a value without a flag, which --config may give in its place."""
        declared = typer.Argument(
            help=self.help, metavar=self.key.upper(), show_default=False, autocompletion=self.complete
        )
        annotation = cast("Any", Annotated)[self.kind.parsed | None, declared]
        return inspect.Parameter(
            self.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )

    def parameter(self) -> inspect.Parameter:
        """The parameter from which the parser makes the flag; its value is None where the flag was not given."""
        if self.argument:
            return self._argument()
        flags = f"{self.flag}/--no-{self.flag[2:]}" if self.kind.parsed is bool else self.flag
        choices = one_of(self.kind.choices) if self.kind.choices else None
        declared = typer.Option(
            flags,
            help=self.help,
            metavar=self.kind.metavar,
            show_default=False,
            rich_help_panel=self.group,
            autocompletion=self.complete or choices,
            hidden=self.hidden,
        )
        annotation = cast("Any", Annotated)[self.kind.parsed | None, declared]
        return inspect.Parameter(
            self.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
        )


def derived(
    cls: type[Any],
    *,
    flags: Mapping[str, str] | None = None,
    follows: Mapping[str, str] | None = None,
    without: Collection[str] = (),
    on_file: Callable[[Path], None] | None = None,
    groups: Mapping[type[Any] | str, str] | None = None,
    complete: Mapping[str, Completer] | None = None,
    arguments: Collection[str] = (),
) -> Callable[[Body], Body]:
    """A decorator for a command whose first argument is an instance of ``cls``, made from options.

    flags: the flags of fields whose flag is not the field's name.
    follows: the fields whose default is the value of another field, with that field's name.
    without: the fields that are no options of this command and keep their default.
    on_file: called with the file of --config before it is read.
    groups: the section of the help for the fields of a dataclass, or for a field by its name, which counts more.
    complete: what the shell completes the values of a field by.
    arguments: the fields whose value stands on the command line without a flag.

    The further parameters of the command are options as they are written; a file can give those whose default is None.
    """
    owners, groups, complete = owners_of(cls), groups or {}, complete or {}
    options = {
        key: replace(
            option,
            group=groups.get(key) or groups.get(owners[key]),
            complete=complete.get(key),
            argument=key in arguments,
        )
        for key, option in options_of(cls, flags=flags, follows=follows, without=without).items()
    }

    def decorate(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        further = {
            p.name: Option(key=p.name, flag=_flag(p.name), kind=kind_of(p.annotation))
            for p in own
            if p.default is None
        }

        @functools.wraps(body)
        def run(config: Path | None, **values: Any) -> None:
            if config is not None and on_file is not None:
                on_file(config)
            given = {} if config is None else from_file(config, cls, {**options, **further})
            given = merged(given, from_line(values, options))
            for key, other in (follows or {}).items():
                if other in given:
                    given.setdefault(key, given[other])
            more = {p.name: values[p.name] for p in own}
            more |= {key: given[key] for key in further if key in given and more[key] is None}
            body(build(cls, options, given), **more)

        parameters = [option.parameter() for option in options.values()]
        parameters += [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (_CONFIG, *own)]
        made = cast("Any", run)
        made.__signature__ = inspect.Signature(parameters)
        made.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Optional[Path],
        typer.Option(help="A JSON or YAML file of options, such as a run's config.json; flags win over it."),
    ],
)


def options_of(
    cls: type[Any],
    *,
    flags: Mapping[str, str] | None = None,
    follows: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> dict[str, Option]:
    """The options of a dataclass and of the dataclasses in its fields, by key, in the order of the fields.

    Fields with the same name are one option. The parameters are those of ``derived``.
    """
    found: dict[str, Option] = {}
    for field, annotation, doc in leaves(cls):
        if field.name in without:
            continue
        if field.name in found:
            before = found[field.name]
            found[field.name] = replace(before, help=f"{doc} {before.help}")
            continue
        flag = (flags or {}).get(field.name) or _flag(field.name)
        other = (follows or {}).get(field.name)
        default = _default(field)
        note = f"that of {_flag(other)}" if other else default_text(default)
        required = default is MISSING
        found[field.name] = Option(
            key=field.name,
            flag=flag,
            kind=kind_of(annotation, None if required else default),
            help=f"{doc}  [{'required' if required else f'default: {note}'}]" if required or note else doc,
            default=None if required else default,
            required=required,
            hidden=bool(field.metadata.get("hidden")),
        )
    return found


def leaves(cls: type[Any]) -> Iterator[tuple[Field[Any], Any, str]]:
    """The fields of a dataclass and of the dataclasses nested in it, with annotation and docstring."""
    hints, docs = get_type_hints(cls), field_docs(cls)
    for field in fields(cls):
        if is_dataclass(hints[field.name]):
            yield from leaves(hints[field.name])
        else:
            yield field, hints[field.name], docs.get(field.name, "")


def owners_of(cls: type[Any]) -> dict[str, type[Any]]:
    """From each option's key to the dataclass that has the field, which is ``cls`` or one nested in it."""
    hints: dict[str, Any] = get_type_hints(cls)
    found: dict[str, type[Any]] = {}
    for field in fields(cls):
        nested = is_dataclass(hints[field.name])
        inner = owners_of(cast("type[Any]", hints[field.name])) if nested else {field.name: cls}
        found = {**inner, **found}
    return found


def build(cls: type[Any], options: Mapping[str, Option], given: Mapping[str, Any]) -> Any:
    """An instance of ``cls`` from the given values; the other fields keep their default.

    Raises UsageError where a required value is missing.
    """
    hints, values = get_type_hints(cls), {}
    for field in fields(cls):
        if is_dataclass(inner := hints[field.name]):
            values[field.name] = build(cast("type[Any]", inner), options, given)
        elif field.name in given and field.name in options:
            values[field.name] = given[field.name]
        elif field.name in options and options[field.name].required:
            option = options[field.name]
            what = f"argument {option.key.upper()!r}" if option.argument else f"option {option.flag!r}"
            raise UsageError(f"Missing {what}. See the command's --help.")
    return cls(**values)


def from_line(values: Mapping[str, Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """The values of the command line, by key. Raises UsageError for a text of the wrong form."""
    given = {key: values[key] for key in options if values.get(key) not in (None, [], ())}
    return {key: options[key].kind.read(options[key].flag, value) for key, value in given.items()}


# These keys of a run's config.json say what the run found, and are no options.
_FOUND = ("chosen", "replay", "fingerprint", "clip_ids", "clip_files")


def from_file(path: Path, cls: type[Any], options: Mapping[str, Option]) -> dict[str, Any]:
    """The values of a configuration file, by key; the fields of ``cls`` may form groups, as in a run's config.json.

    Raises UsageError where the file cannot be read, for an unknown key, and for a value of the wrong form.
    """
    table = _flat(read_table(path, "configuration file"), _groups(cls))
    names = {key: key for key in options} | {
        option.flag[2:].replace("-", "_"): key for key, option in options.items()
    }
    found = {}
    for key, value in table.items():
        if key in _FOUND and key not in names:
            continue
        if key not in names:
            raise unknown(f"key in the configuration file {str(path)!r}:", key, options)
        found[names[key]] = options[names[key]].kind.read(f"{key} in {str(path)!r}", value)
    return found


def merged(first: Mapping[str, Any], winner: Mapping[str, Any]) -> dict[str, Any]:
    """The values of both mappings; the winner's value is taken where both have one, and key by key in two tables."""
    found = {**first, **winner}
    for key in first.keys() & winner.keys():
        if isinstance(first[key], Mapping) and isinstance(winner[key], Mapping):
            found[key] = {**first[key], **winner[key]}
    return found


def default_text(default: Any) -> str:
    """The text of a default in a help text; empty where there is nothing to show."""
    if default is MISSING or default is None or isinstance(default, bool):
        return ""
    if isinstance(default, (tuple, Mapping)):
        return ",".join(map(str, default))
    return f"{default:g}" if isinstance(default, float) else str(default)


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


def _groups(cls: type[Any]) -> set[str]:
    """The names of the fields, at any depth, that are dataclasses."""
    found = set()
    for name, annotation in get_type_hints(cls).items():
        if is_dataclass(annotation):
            found |= {name} | _groups(cast("type[Any]", annotation))
    return found


def _flat(table: Mapping[Any, Any], groups: Collection[str]) -> dict[str, Any]:
    """The table with the content of its groups at the top level; hyphens in keys count as underscores."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        key = str(name).replace("-", "_")
        if key in groups and isinstance(value, Mapping):
            found |= _flat(value, groups)
        else:
            found[key] = value
    return found
