"""The figures of docs/results as data: what a figure and a table are, and how their JSON files are read and written."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OVER = ("draws", "clips", "classes")
"""What the half widths of a difference are over, in the order in which they are printed."""


@dataclass(frozen=True, kw_only=True)
class Widths:
    """The half widths of the 95 % intervals of a difference, in points; None where there is none.

    There is none where the runs do not allow it (persons decide which clips an episode may hold), where it would be a
    bound on one side (all outcomes are alike), and in figures that are older than it.
    """

    draws: float | None = None
    """Over other episodes of the same clips."""
    clips: float | None = None
    """Over other clips of the same classes."""
    classes: float | None = None
    """Over other classes."""

    def __bool__(self) -> bool:
        """Whether any is known."""
        return any(self.of(kind) is not None for kind in OVER)

    def of(self, kind: str) -> float | None:
        """The half width over one of ``OVER``."""
        width: float | None = getattr(self, kind)
        return width

    def rounded(self, digits: int) -> Widths:
        """The same with so many digits after the point."""
        return Widths(
            **{kind: None if (w := self.of(kind)) is None else round(float(w), digits) for kind in OVER}
        )


UNKNOWN = Widths()
"""The widths of what is no difference, or of a difference without an interval."""


@dataclass(frozen=True)
class Figure:
    """One figure, and where it stands. ``value`` is None where it was not measured."""

    page: str
    table: str
    row: str
    column: str
    part: str | None
    """Which of several figures of one cell this is, such as a class split; None for the only one."""
    details: str | None
    """The text of the second label column, for tables that have one."""
    value: float | None
    unit: str
    interval: float | None
    """The half width of the 95 % interval of ``value``, in its unit."""
    interval_over: str | None
    """What that interval is taken over: draws, clips, classes or tasks."""
    difference: float | None
    """The paired difference on the same episodes, from what the table's ``difference_from`` names."""
    difference_widths: Widths
    episodes: int | None
    command: str | None
    """What gives the figure again; None where no single command does."""
    commit: str | None
    note: str | None
    run: str | None
    """The name of the run kept under docs/results/runs/."""

    @property
    def place(self) -> tuple[str | None, ...]:
        """What tells this figure from every other."""
        return self.table, self.row, self.details, self.column, self.part


@dataclass(frozen=True)
class Table:
    """How the figures of one table are laid out; its lines stand in the order of the figures."""

    name: str
    corner: str = ""
    """The header of the label column."""
    details: str | None = None
    """The header of a second label column, or None."""
    columns: tuple[str, ...] = ()
    digits: int | None = None
    """Digits after the point of a figure that is stored with one; None prints every figure as it is stored."""
    difference_from: str | None = None
    """What differences are taken from, as the line above the table says it; None where it says nothing of that."""
    named_parts: bool = False
    show_units: bool = False


@dataclass
class Data:
    """The figures of one file, or of all files together."""

    tables: dict[str, Table] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)


def read_file(path: Path) -> Data:
    """The tables and figures of one JSON file. Exits with a sentence if a row has other keys than Figure."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    tables = [Table(**{**table, "columns": tuple(table["columns"])}) for table in stored["tables"]]
    return Data({table.name: table for table in tables}, [_figure(row, path) for row in stored["rows"]])


def _figure(row: Mapping[str, Any], path: Path) -> Figure:
    known = {f.name for f in fields(Figure)}
    if set(row) != known:
        sys.exit(f"{path.name}: the row {row} has other keys than {', '.join(sorted(known))}.")
    widths = row["difference_widths"] or {}
    if set(widths) - {*OVER}:
        sys.exit(f"{path.name}: the row {row} has widths over other things than {', '.join(OVER)}.")
    return Figure(**{**row, "difference_widths": Widths(**widths)})


def write_file(path: Path, data: Data) -> None:
    """One line a table and one a figure, so that a changed figure is one changed line."""
    tables = [
        json.dumps(asdict(table), ensure_ascii=False, allow_nan=False) for table in data.tables.values()
    ]
    rows = [
        json.dumps(
            {
                **asdict(figure),
                "difference_widths": asdict(widths) if (widths := figure.difference_widths) else None,
            },
            ensure_ascii=False,
            allow_nan=False,
        )
        for figure in data.figures
    ]
    first, second = (",\n".join(lines) for lines in (tables, rows))
    text = f'{{\n"tables": [\n{first}\n],\n"rows": [\n{second}\n]\n}}\n'
    path.write_text(text, encoding="utf-8")


def put_tables(path: Path, data: Data) -> None:
    """Write tables with their figures into a file, in place of those of the same names; the others stay."""
    held = read_file(path) if path.exists() else Data()
    rest = [figure for figure in held.figures if figure.table not in data.tables]
    write_file(path, Data({**held.tables, **data.tables}, [*rest, *data.figures]))


def read_all(root: Path) -> Data:
    """Every file's tables and figures. Exits with a sentence if two figures claim one place."""
    joined = Data()
    for path in sorted((root / "docs" / "results").glob("*.json")):
        data = read_file(path)
        joined.tables.update(data.tables)
        joined.figures.extend(data.figures)
    places: set[tuple[str | None, ...]] = set()
    for figure in joined.figures:
        if figure.place in places:
            sys.exit(f"Two figures have the place {figure.place}; remove one of them.")
        places.add(figure.place)
    return joined


def with_figure(data: Data, figure: Figure) -> Data:
    """The data with this figure in its place: instead of an older one, or at the end of its table."""
    table = data.tables.get(figure.table, Table(figure.table, digits=1))
    if figure.column not in table.columns:
        table = Table(**{**asdict(table), "columns": (*table.columns, figure.column)})
    known = {f.place: number for number, f in enumerate(data.figures)}
    if figure.place in known:
        at = known[figure.place]
        figures = [*data.figures[:at], figure, *data.figures[at + 1 :]]
    else:
        figures = [*data.figures, figure]
    return Data({**data.tables, table.name: table}, figures)
