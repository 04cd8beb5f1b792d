"""Docstrings as Markdown: an extension of griffe, which reads the package's sources for the site's API pages.

Docstrings are plain text with three habits that Markdown does not know: examples that begin with ``>>>``, lines of the
form ``name: what it is``, and references such as ``:class:`~fsmm.cache.table.Table```.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_FIELD = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*(?: / [a-z_]\w*)*): (?P<text>.*)$")
_ROLE = re.compile(r":\w+:`~?(?:[\w.]+\.)?(?P<name>\w+)`")


class Docstrings(griffe.Extension):
    """Turns every docstring into Markdown as soon as it has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """Markdown of a docstring: examples become code, fields become a list, references become names in code type."""
    lines: list[str] = []
    inside, in_list = False, False
    for line in _ROLE.sub(r"`\g<name>`", text).splitlines():
        if inside and not line.strip():
            lines += ["```", ""]
            inside = False
        elif inside:
            lines.append(line)
        elif line.startswith(">>> "):
            lines += ["", "```pycon", line]
            inside = True
        elif field := _FIELD.match(line):
            lines += [] if in_list else [""]
            lines.append(f"- `{field['names']}`: {field['text']}")
            in_list = True
        else:
            in_list = in_list and line.startswith(" ")
            lines += ["", line] if lines and lines[-1].startswith("- ") and not in_list and line else [line]
    return "\n".join([*lines, "```"] if inside else lines)
