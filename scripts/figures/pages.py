"""The pages of docs/results: the prose of docs/results/sources with its placeholders replaced by figures.

A placeholder of the prose is one of

    {{ table: NAME }}                                    the whole table, below the line that says what its ± is over
    {{ figure: TABLE | ROW | COLUMN }}                   one value; a fourth word picks another field, a fifth the part
    {{ gap: TABLE | ROW | COLUMN minus TABLE | ROW | COLUMN }}   how far two values lie apart
    {{ command: TABLE | ROW | COLUMN }}                  the command that gives a figure
    {{ count: figures }}, {{ count: commits }}           how many figures the data has, and how many with a commit

The fourth word is a field of a figure; or draws, clips or classes, for that half width of its difference; or paired,
for the difference with all half widths that its table has.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from .data import OVER, Data, Figure, read_all
from .text import difference_text, half_width, number, table_text, widths_over

PLACEHOLDER = re.compile(r"\{\{\s*(\w+):\s*(.*?)\s*\}\}", re.DOTALL)
OVERVIEW = "overview"
"""The source of docs/results.md; every other source NAME.md.in gives docs/results/NAME.md."""


def write(root: Path) -> None:
    """Write every page that has changed, and say which."""
    for path, text in pages(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(root)} is written.")


def check(root: Path) -> None:
    """Exit 1 with the name of the first page that differs from what the data gives."""
    for path, text in pages(root).items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(root)} is not up to date; run python scripts/results.py.")


def pages(root: Path) -> dict[Path, str]:
    """Every page's path and the text that it should have."""
    data = read_all(root)
    found = {}
    for source in sorted((root / "docs" / "results" / "sources").glob("*.md.in")):
        name = source.name.removesuffix(".md.in")
        folder = root / "docs" if name == OVERVIEW else root / "docs" / "results"
        made = f"<!-- Made by scripts/results.py from docs/results/sources/{source.name}: edit that. -->\n"
        path = folder / ("results.md" if name == OVERVIEW else f"{name}.md")
        found[path] = made + fill(source.read_text(encoding="utf-8"), data, name)
    return found


def fill(text: str, data: Data, page: str) -> str:
    """The prose with every placeholder replaced. Exits with a sentence if one names nothing."""

    def replaced(match: re.Match[str]) -> str:
        kind, what = match[1], " ".join(match[2].split())
        try:
            return placeholder(kind, what, data)
        except LookupError as error:
            sys.exit(f"{page}: {{{{ {kind}: {what} }}}} cannot be filled: {error.args[0]}.")

    return PLACEHOLDER.sub(replaced, text)


def placeholder(kind: str, what: str, data: Data) -> str:
    """The text of one placeholder. Raises LookupError if it names no figure, or more than one."""
    if kind == "table":
        return table_text(what, data)
    if kind == "figure":
        return figure_text(what, data)
    if kind == "gap":
        first, second = (find(text, data) for text in what.split(" minus "))
        return gap_text(first, second, data.tables[first.table].digits)
    if kind == "command":
        return find(what, data).command or "no command"
    if kind == "count":
        counted = [f for f in data.figures if f.value is not None and (what == "figures" or f.commit)]
        return f"{len(counted):,}"
    raise LookupError(f"there is no placeholder named {kind}")


def find(what: str, data: Data) -> Figure:
    """The figure that ``TABLE | ROW | COLUMN | field | PART`` names. Raises LookupError unless there is one."""
    table, row, column, _, part = [*(text.strip() for text in what.split("|")), None, None][:5]
    named = [f for f in data.figures if (f.table, f.row, f.column) == (table, row, column)]
    found = [f for f in named if part in (None, f.part)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} figures have this place")
    return found[0]


def figure_text(what: str, data: Data) -> str:
    """One field of one figure: its value unless the placeholder names another field."""
    figure, words = find(what, data), what.split("|")
    table = data.tables[figure.table]
    name = words[3].strip() if len(words) > 3 else "value"
    if name == "paired":
        over = widths_over([f for f in data.figures if f.table == figure.table])
        return difference_text(figure, table, over)
    content = figure.difference_widths.of(name) if name in OVER else getattr(figure, name)
    if content is None:
        raise LookupError(f"its {name} was not measured")
    if name == "difference":
        return number(content, table.digits, signed=True)
    return half_width(content, table.digits) if name in (*OVER, "interval") else number(content, table.digits)


def gap_text(first: Figure, second: Figure, digits: int | None) -> str:
    """How far two values lie apart. Raises LookupError if one of them was not measured."""
    if first.value is None or second.value is None:
        raise LookupError("a value was not measured")
    return number(float(abs(first.value - second.value)), 1 if digits is None else digits)
