"""The tables and the figures of accuracy under uneven queries, from sweeps of the preset ``stress``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from figures.curves import Panel, Row
from figures.curves import svg as curves
from figures.data import ROOT, Data
from figures.study_parts import ONE, command_of_part, part_of
from frontier_heads import Tables, rounded

from fsmm.studies.grid.store import read_study
from fsmm.studies.report.data import ReportRun, of_sweep
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
    rows = []
    for name in names:
        shots = name.rpartition("-")[0].rpartition("-")[2]
        values = {(f.row, f.column): f.value for f in data.figures if f.table == name and f.value is not None}
        shown = [value for (_, column), value in values.items() if column != WIDEST]
        panels = [
            Panel(axis=axis, curves={head: points_of(values, head, unit) for head in heads})
            for unit, axis in AXES.items()
        ]
        low = 10 * (min(shown) // 10) if shown else 0.0
        rows.append(Row(title=f"Accuracy in %, {WAYS}-way {shots}-shot", panels=panels, low=low))
    return curves(rows, heads)


def points_of(values: dict[tuple[str, str], float], head: str, unit: str) -> list[tuple[float, float]]:
    """A head's accuracy along an axis, by rising place."""
    found = []
    for (row, column), value in values.items():
        number, _, of = column.partition(" ")
        if row == head and (column == EVEN or of == unit):
            found.append((float(WHERE[EVEN][unit]) if column == EVEN else float(number), value))
    return sorted(found)
