"""The text of a table of figures as Markdown, with the line above it that says what its intervals are over."""

from __future__ import annotations

from collections.abc import Sequence

from .data import OVER, Data, Figure, Table

UNKNOWN_WIDTH = "–"


def table_text(name: str, data: Data) -> str:
    """A table as Markdown below what ± means in it. Raises LookupError if the data has no table of this name."""
    if name not in data.tables:
        raise LookupError("no file has a table of this name")
    table = data.tables[name]
    figures = [figure for figure in data.figures if figure.table == name]
    over = widths_over(figures)
    cells: dict[tuple[str, str | None], dict[str, list[Figure]]] = {}
    for figure in figures:
        line = cells.setdefault((figure.row, figure.details), {})
        line.setdefault(figure.column, []).append(figure)
    header = [table.corner, *([table.details] if table.details else []), *table.columns]
    lines = [header, ["---"] * len(header)]
    for (row, details), line in cells.items():
        labels = [row, *([details or ""] if table.details else [])]
        lines.append([*labels, *(cell_text(line.get(column, []), table, over) for column in table.columns)])
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    meaning = intervals_text(figures, table)
    return f"{meaning}\n\n{rows}" if meaning else rows


def widths_over(figures: Sequence[Figure]) -> list[str]:
    """What the half widths of the differences of some figures are over, of ``OVER``: what one of them has."""
    return [kind for kind in OVER if any(f.difference_widths.of(kind) is not None for f in figures)]


def intervals_text(figures: Sequence[Figure], table: Table) -> str:
    """The line above a table: what its accuracies' ± and its differences' are over; empty where it has neither."""
    sentences = []
    if kinds := list(dict.fromkeys(f.interval_over for f in figures if f.interval_over)):
        by_row = ", as the row says" if len(kinds) > 1 else ""
        sentences.append(f"± is the 95 % half width over {' / '.join(kinds)}{by_row}.")
    if not any(f.difference is not None for f in figures):
        return " ".join(sentences)
    differences = "In brackets is the paired difference"
    if table.difference_from:
        differences += f" from {table.difference_from}"
    if over := widths_over(figures):
        differences += f" ± its 95 % half width over {' / '.join(over)}"
        if any(
            f.difference_widths and f.difference_widths.of(kind) is None for f in figures for kind in over
        ):
            differences += f" ({UNKNOWN_WIDTH}: not known)"
    sentences.append(f"{differences}.")
    if over and any(f.difference == 0 and not f.difference_widths for f in figures):
        sentences.append("A zero without ± is that of heads that decide every query alike.")
    return " ".join(sentences)


def cell_text(figures: list[Figure], table: Table, over: Sequence[str]) -> str:
    """The figures of one cell: values, then a common interval, the differences in brackets, and notes.

    over: what the half widths of the table's differences are over.
    """
    if not figures:
        return ""
    if all(f.value is None for f in figures):
        return "–"
    intervals = {f.interval for f in figures}
    common = intervals.pop() if len(intervals) == 1 else None
    texts = [part_text(f, table, with_interval=common is None) for f in figures]
    text = (", " if table.named_parts or table.show_units else " / ").join(texts)
    if common is not None:
        text += f" ± {half_width(common, table.digits)}"
    text += "".join(f" ({difference_text(f, table, over)})" for f in figures if f.difference is not None)
    notes = {f.note for f in figures if f.note}
    return " ".join([text, *sorted(notes)])


def part_text(figure: Figure, table: Table, *, with_interval: bool) -> str:
    """One figure of a cell without its difference; an en dash where it was not measured."""
    if figure.value is None:
        return "–"
    text = number(figure.value, table.digits)
    if with_interval and figure.interval is not None:
        text += f" ± {half_width(figure.interval, table.digits)}"
    if table.named_parts and figure.part:
        text = f"{figure.part} {text}"
    return f"{text} {figure.unit}" if table.show_units else text


def difference_text(figure: Figure, table: Table, over: Sequence[str] = OVER) -> str:
    """``+6.7 ± 0.2 / 0.8 / 1.9``, a dash for a width that is not known; ``+6.7`` where none is.

    over: what the half widths that are printed are over. Raises LookupError where there is no difference.
    """
    if figure.difference is None:
        raise LookupError("its difference was not measured")
    text = number(figure.difference, table.digits, signed=True)
    if not figure.difference_widths:
        return text
    widths = (figure.difference_widths.of(kind) for kind in over)
    printed = (UNKNOWN_WIDTH if width is None else half_width(width, table.digits) for width in widths)
    return f"{text} ± {' / '.join(printed)}"


def number(value: float, digits: int | None, *, signed: bool = False) -> str:
    """``1,234.5``, with a sign if ``signed``; whole numbers, and all if ``digits`` is None, are printed as stored."""
    sign, places = "+" if signed else "", "" if digits is None or isinstance(value, int) else f".{digits}f"
    return format(value, f"{sign},{places}")


def half_width(value: float, digits: int | None) -> str:
    """The half width of an interval; one that rounds to zero is printed as less than the last digit."""
    places = 1 if digits is None else digits
    return f"< {10**-places:.{places}f}" if round(value, places) == 0 else number(value, digits)
