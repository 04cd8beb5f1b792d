"""``fsmm methods`` prints the list of methods, or a page about one of them."""

from __future__ import annotations

import inspect
import sys
from dataclasses import asdict, fields
from typing import Annotated, Any, Optional

import typer

from . import completion, console

_MODALITIES = {
    "one": "one; several are joined by fusion: NAME-ec, NAME-ea, NAME-lf (or --fusion)",
    "two": "two or more",
    "any": "any number",
}
_REGIMES = {
    "none": "nothing is learned by default",
    "episodic": "on episodes of the base classes; stops early on the val classes",
    "batch": "on batches of clips of the base classes; stops early on the val classes",
}


def register(app: typer.Typer) -> None:
    app.command("methods")(methods)


def methods(
    name: Annotated[
        Optional[str],
        typer.Argument(help="A method, for a page about it.", autocompletion=completion.methods),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """List the methods, or show the paper, idea, settings, recipe and needs of one of them."""
    if name is not None:
        page = page_of(name)
        console.print_json(page) if json else _show_page(page)
        return
    from ..heads.registry import rows

    listed = rows()
    if json:
        console.print_json(listed)
        return
    columns = (
        "method",
        "family",
        "paper",
        "year",
        "regime",
        "transductive",
        "modalities",
        "words",
        "zero-shot",
    )
    table = [
        (
            str(row["name"]),
            str(row["family"]),
            f"{row['paper']}, {row['venue']}",
            str(row["year"]),
            str(row["regime"]),
            "yes" if row["transductive"] else "no",
            str(row["modalities"]),
            str(row["words"]),
            "yes" if row["zero_shot"] else "no",
        )
        for row in listed
    ]
    caption = (
        "`fsmm methods NAME` prints a method's page. Methods of one modality take several by fusion: NAME-ec, NAME-ea, "
        "NAME-lf (or --fusion)."
    )
    console.print_table("", columns, table, caption)


def page_of(name: str) -> dict[str, Any]:
    """The page about a method, as plain values. Raises UsageError for an unknown name."""
    from ..heads.head import Head
    from ..heads.registry import base_name, find
    from ..heads.registry import page_of as documented
    from ..heads.settings import Recipe

    method, _ = find(name)
    cls = method.load()
    module = sys.modules[cls.__module__]
    # A method that learns nothing by default may have a setting that gives it weights; it then has its own recipe.
    learns = method.regime != "none" or cls.recipe is not Head.recipe
    title, _, idea = (inspect.getdoc(module) or "").partition("\n\n")
    return {
        "name": base_name(name),
        "page": documented(base_name(name)),
        "title": title,
        "paper": {**asdict(method.paper)},
        "idea": idea,
        "remarks": cls.__doc__ if "__doc__" in vars(cls) and cls.__doc__ else "",
        "family": method.family,
        "regime": method.regime,
        "transductive": method.transductive,
        "modalities": method.modalities,
        "words": method.words,
        "zero_shot": method.zero_shot,
        "reads_supports": method.reads_supports,
        "reads_unlabelled": method.reads_unlabelled,
        "reads_time": method.reads_time,
        "fits_base": method.fits_base,
        "official_numbers": list(method.reference),
        "decided": {key: asdict(decided) for key, decided in cls.decided.items()},
        "settings": _fields_of(cls.Settings, cls.Settings()),
        "recipe": _fields_of(Recipe, cls.recipe) if learns else [],
    }


def _fields_of(kind: type[Any], values: Any) -> list[dict[str, Any]]:
    """The key, allowed values, default and meaning of each field of a dataclass."""
    from ..heads.settings import docs_of, types_of, values_of

    types, docs = types_of(kind), docs_of(kind)
    return [
        {
            "key": field.name,
            "values": values_of(types[field.name]),
            "default": getattr(values, field.name),
            "meaning": docs.get(field.name, ""),
        }
        for field in fields(kind)
    ]


def _show_page(page: dict[str, Any]) -> None:
    paper = page["paper"]
    print(f"{page['name']}\n")
    print(f"{paper['title']}\n{paper['authors']}, {paper['venue']} {paper['year']}, {paper['url']}\n")
    for text in (page["idea"], inspect.cleandoc(page["remarks"])):
        if text:
            console.print_prose(text)
            print()
    rows = [
        ("family", page["family"]),
        ("learns", _REGIMES[page["regime"]]),
        ("decides", "the queries of a task together" if page["transductive"] else "each query by itself"),
        ("reads", "the steps of a clip" if page["reads_time"] else "the mean of a clip's steps"),
        ("modalities", _MODALITIES[page["modalities"]]),
        ("class words", page["words"]),
        ("needs", "; ".join(_needs(page))),
        (
            "official numbers",
            "reproduced: " + ", ".join(page["official_numbers"])
            if page["official_numbers"]
            else "none to compare with",
        ),
    ]
    if page["page"]:
        rows.append(("described in", page["page"]))
    console.print_table("", ("", "what"), rows)
    _show_fields("Settings (--set key=value)", page["settings"])
    _show_fields("Training (--set train.key=value)", page["recipe"])
    decided = [(key, _MADE_ON[each["on"]], each["published"]) for key, each in page["decided"].items()]
    if decided:
        console.print_table(
            "What choices are made on", ("", "here", "by its authors, where otherwise"), decided
        )


_MADE_ON = {
    "base": "base classes",
    "val": "val classes",
    "base and val": "base and val classes",
    "supports": "each task's own supports",
    "given": "the user",
    "none": "nothing: it is fixed",
}


def _needs(page: dict[str, Any]) -> list[str]:
    """The inputs that the method needs to run."""
    found = ["two streams"] if page["modalities"] == "two" else ["a stream"]
    if page["words"] == "needed":
        found.append("class words")
    if page["regime"] != "none":
        found.append("base classes to learn on")
    elif page["fits_base"]:
        found.append("base classes for its statistics")
    if page["reads_unlabelled"]:
        found.append("unlabelled clips (--unlabelled)")
    if not page["reads_supports"]:
        return [*found, "no supports: they are not read"]
    return [*found, "supports, or class words instead" if page["zero_shot"] else "supports"]


def _show_fields(title: str, listed: list[dict[str, Any]]) -> None:
    if not listed:
        return
    rows = [(f["key"], _text(f["default"]), f["values"], f["meaning"]) for f in listed]
    console.print_table(title, ("key", "default", "values", "meaning"), rows)


def _text(value: Any) -> str:
    """The text of a default as a user types it after ``--set key=``."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
