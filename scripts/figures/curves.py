"""Rows of panels of curves as plain SVG, so that the same data give the same bytes whatever is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from fsmm.studies.report.parts import COLOURS, DASHES

LEFT, TOP, WIDE, HIGH, GAP, LEGEND = 52, 40, 220, 230, 24, 150  # pixels
DASH = {"solid": "", "dash": "7 4", "dot": "2 3", "dashdot": "7 3 2 3"}
INK, GRID = "#444", "#ddd"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The curves over one axis."""

    axis: str
    """What the axis is, in words."""
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """The points of each curve, in per cent, by rising place; a curve that the panel lacks has none."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels side by side, which share their levels."""

    title: str
    """What is written above the row."""
    panels: Sequence[Panel]
    """The panels."""
    low: float
    """The lowest level, in per cent; the highest is 100."""


def svg(rows: Sequence[Row], names: Sequence[str]) -> str:
    """The SVG text of rows of panels; names: those of the curves, in the order of the legend."""
    across = max(len(row.panels) for row in rows)
    width = LEFT + across * WIDE + (across - 1) * GAP + LEGEND + 20
    height = TOP + len(rows) * (HIGH + 62)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for number, row in enumerate(rows):
        top = TOP + number * (HIGH + 62)
        parts.append(f'<text x="{LEFT}" y="{top - 12}" fill="{INK}">{escape(row.title)}</text>')
        for place, panel in enumerate(row.panels):
            left = LEFT + place * (WIDE + GAP)
            parts += _panel(panel, names, left=left, top=top, low=row.low, named=place == 0)
    parts += _legend(names, LEFT + across * WIDE + (across - 1) * GAP + 14)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(
    panel: Panel, names: Sequence[str], *, left: int, top: int, low: float, named: bool
) -> Iterable[str]:
    """The elements of a panel: its frame, its marks, and a line for each curve; named: whether its levels are."""
    places = sorted({x for line in panel.curves.values() for x, _ in line})
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
        f"{escape(panel.axis)}</text>"
    )
    for number, name in enumerate(names):
        line = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in panel.curves.get(name, ()))
        if line:
            yield f'<polyline points="{line}" fill="none" {_look(number)}/>'


def _look(number: int) -> str:
    """The colour and the dashes of a curve."""
    dash = DASH[DASHES[number // len(COLOURS) % len(DASHES)]]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.6"{dashed}'


def _legend(names: Sequence[str], left: int) -> Iterable[str]:
    """The names of the curves beside the panels, each with its line."""
    for number, name in enumerate(names):
        y = TOP + 8 + 18 * number
        yield f'<line x1="{left}" x2="{left + 26}" y1="{y}" y2="{y}" {_look(number)}/>'
        yield f'<text x="{left + 32}" y="{y + 4}" fill="{INK}">{escape(name)}</text>'
