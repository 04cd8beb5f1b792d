"""The tables and the figures of accuracy under uneven queries, from sweeps of the preset ``stress``.

The script writes plain SVG itself, so that the same data give the same bytes whatever is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from figures.data import ROOT, Data
from figures.study_parts import ONE, command_of_part, part_of
from frontier_heads import Tables, rounded

from fsmm.studies.grid.store import read_study
from fsmm.studies.report.data import ReportRun, of_sweep
from fsmm.studies.report.parts import COLOURS, DASHES
from fsmm.studies.report.stress import panels_of

UNITS = {"query_classes": "classes", "dirichlet": "effective", "n_query": "queries"}
"""The word behind a number in the name of a column, by the field that varies."""
AXES = {
    "classes": "classes that have queries",
    "effective": "effective classes (Dirichlet)",
    "queries": "queries a class",
}
OPTIONS = {
    "utd-segments": " --set modalities=inertial,skeleton",
    "demo": " --set modalities=frame,flow",
}
"""What the sweep of a data set is told besides, after the number of episodes."""
EVEN, WIDEST = "even", "± at most"
WAYS, QUERIES = 5, 15
WHERE = {EVEN: {"classes": WAYS, "effective": WAYS, "queries": QUERIES}}
PREFIX = "stress-"
LEFT, TOP, WIDE, HIGH, GAP, LEGEND = 52, 40, 220, 230, 24, 150  # pixels
DASH = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}
INK, GRID = "#444", "#ddd"


def stress_tables(tables: Tables, name: str, folder: Path) -> None:
    """A table for each number of shots: a row a head, a column a way of being uneven.

    folder: that of a sweep of ``stress`` on the data set, or of the study that includes it.
    """
    study = read_study(folder)
    data = of_sweep(part_of(study, f"{PREFIX}{name}") or study)
    if not data.runs:
        sys.exit(f"No run of stress on {name} is done in {folder}.")
    options = f"--set episodes={data.runs[0].metrics['episodes']}{OPTIONS.get(name, '')}"
    command = f"fsmm sweep stress --cache CACHE --dataset {name} --out stress-{name} {options}"
    if study.name == ONE:
        command = command_of_part(study, f"{PREFIX}{name}", command)
    for row in panels_of(data.runs):
        shots = row[0].first.shots
        table, columns, widest = f"{PREFIX}{name}-{shots}-shot", [EVEN], dict[str, float]()
        found: dict[tuple[str, str], ReportRun] = {}
        for panel in row:
            for curve in panel.curves:
                for x, run in curve.points:
                    column = column_of(panel.stress.field, x)
                    columns += [column] if column not in columns else []
                    found[curve.name, column] = run
                    widest[curve.name] = max(widest.get(curve.name, 0.0), 100 * (run.number("ci95") or 0.0))
        columns = [EVEN, *sorted(columns[1:], key=place)]
        for head in dict.fromkeys(curve.name for panel in row for curve in panel.curves):
            for column in columns:
                run = found.get((head, column))
                value = None if run is None else 100 * run.accuracy
                episodes = None if run is None else run.metrics["episodes"]
                tables.add(table, head, column, value, episodes=episodes, command=command)
            tables.add(table, head, WIDEST, rounded(widest[head]), unit="points", command=command)
        tables.start(table, f"method, {shots}-shot", [*columns, WIDEST])
        print(f"Stress on {name}, {shots}-shot: {len(widest)} heads.")


def column_of(field: str, x: float) -> str:
    """The name of the column of a place on an axis."""
    unit = UNITS[field]
    return EVEN if x == WHERE[EVEN][unit] else f"{x:.3g} {unit}"


def place(column: str) -> tuple[int, float]:
    """Where a column stands: by its axis, the mildest first."""
    number, _, unit = column.partition(" ")
    return [*AXES].index(unit), -float(number)


def draw(data: Data) -> dict[Path, str]:
    """The text of each data set's figure by its path."""
    names = [name for name in data.tables if name.startswith(PREFIX)]
    sets = dict.fromkeys(name.removeprefix(PREFIX).rpartition("-")[0].rpartition("-")[0] for name in names)
    folder = ROOT / "docs" / "results"
    return {
        folder / f"{PREFIX}{each}.svg": svg(data, [n for n in names if n.startswith(f"{PREFIX}{each}-")])
        for each in sets
    }


def svg(data: Data, names: Sequence[str]) -> str:
    """The SVG text of tables: a row of panels each, one panel an axis."""
    heads = list(dict.fromkeys(f.row for f in data.figures if f.table in names))
    width = LEFT + 3 * WIDE + 2 * GAP + LEGEND + 20
    height = TOP + len(names) * (HIGH + 62)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, name in enumerate(names):
        top = TOP + number * (HIGH + 62)
        shots = name.rpartition("-")[0].rpartition("-")[2]
        parts.append(
            f'<text x="{LEFT}" y="{top - 12}" fill="{INK}">Accuracy in %, {WAYS}-way {shots}-shot</text>'
        )
        values = {(f.row, f.column): f.value for f in data.figures if f.table == name and f.value is not None}
        shown = [value for (_, column), value in values.items() if column != WIDEST]
        low = 10 * (min(shown) // 10) if shown else 0.0
        for panel, unit in enumerate(AXES):
            parts += panel_of(
                values, heads, unit, left=LEFT + panel * (WIDE + GAP), top=top, low=low, named=panel == 0
            )
    parts += legend(heads)
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel_of(
    values: dict[tuple[str, str], float], heads: Sequence[str], unit: str, *, left: int, top: int, low: float,
    named: bool,
) -> Iterable[str]:  # fmt: skip
    """The elements of a panel: its frame, its marks, and a line for each head; named: whether its levels are."""
    points = {head: points_of(values, head, unit) for head in heads}
    places = sorted({x for line in points.values() for x, _ in line})
    yield f'<rect x="{left}" y="{top}" width="{WIDE}" height="{HIGH}" fill="none" stroke="{GRID}"/>'
    if len(places) < 2:
        return  # nothing varies along this axis
    ends = places[0], places[-1]

    def across(x: float) -> float:
        return left + 10 + (WIDE - 20) * (x - ends[0]) / (ends[1] - ends[0] or 1)

    def down(y: float) -> float:
        return top + HIGH * (100 - y) / (100 - low)

    for level in range(int(low), 101, 10):
        yield f'<line x1="{left}" x2="{left + WIDE}" y1="{down(level):.1f}" y2="{down(level):.1f}" stroke="{GRID}"/>'
        if named:
            yield f'<text x="{left - 6}" y="{down(level) + 4:.1f}" text-anchor="end" fill="{INK}">{level}</text>'
    for x in places:
        yield f'<text x="{across(x):.1f}" y="{top + HIGH + 15}" text-anchor="middle" fill="{INK}">{x:.2g}</text>'
    yield (
        f'<text x="{left + WIDE / 2}" y="{top + HIGH + 33}" text-anchor="middle" fill="{INK}">'
        f"{escape(AXES[unit])}</text>"
    )
    for number, head in enumerate(heads):
        line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points[head])
        if line:
            yield f'<polyline points="{line}" fill="none" {look(number)}/>'


def points_of(values: dict[tuple[str, str], float], head: str, unit: str) -> list[tuple[float, float]]:
    """A head's accuracy along an axis, by rising place."""
    found = []
    for (row, column), value in values.items():
        number, _, of = column.partition(" ")
        if row == head and (column == EVEN or of == unit):
            found.append((float(WHERE[EVEN][unit]) if column == EVEN else float(number), value))
    return sorted(found)


def look(number: int) -> str:
    """The colour and the dashes of a head's line."""
    dash = DASH[DASHES[number // len(COLOURS) % len(DASHES)]]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.6"{dashed}'


def legend(heads: Sequence[str]) -> Iterable[str]:
    """The names of the heads beside the panels, each with its line."""
    left = LEFT + 3 * WIDE + 2 * GAP + 14
    for number, head in enumerate(heads):
        y = TOP + 8 + 18 * number
        yield f'<line x1="{left}" x2="{left + 26}" y1="{y}" y2="{y}" {look(number)}/>'
        yield f'<text x="{left + 32}" y="{y + 4}" fill="{INK}">{escape(head)}</text>'
