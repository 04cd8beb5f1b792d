"""What a page consists of: sections with figures and tables, and the looks that all figures share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import plotly.graph_objects as go

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31", "#7F7F7F")
"""The colours of Okabe and Ito, which colour-blind readers tell apart, with brown and grey for yellow and black."""
DASHES = ("solid", "dash", "dot", "dashdot")
SCALE = "Viridis"
"""The colour scale of heat maps."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a page."""

    title: str
    """What the figure shows."""
    plot: go.Figure
    """The figure itself, whose colours of text and ground the page sets."""
    caption: str = ""
    """What a reader must know to read it."""
    wide: bool = False
    """Whether it is scrolled on a narrow screen, since it cannot be read there otherwise."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A plain table of a page."""

    title: str
    """What the table shows."""
    columns: Sequence[str]
    """The heads of the columns."""
    rows: Sequence[Sequence[str]]
    """The texts of the cells."""
    caption: str = ""
    """What a reader must know to read it."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page."""

    name: str
    """The section's name within the page, such as shots."""
    title: str
    """The section's heading."""
    text: str = ""
    """What the section shows, in one or two sentences."""
    figures: Sequence[Figure] = ()
    """The figures."""
    tables: Sequence[Table] = ()
    """The tables."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Pictures of clips by id, as the Base64 of a JPEG, which figures show when the pointer rests on a clip."""
    notes: Sequence[str] = field(default=())
    """Sentences on what was left out, and why."""


def plot_of(traces: Sequence[Any], *, height: int = 380, **layout: Any) -> go.Figure:
    """A figure of traces without a theme, with the margins that all figures have, and room for its legend."""
    import plotly.graph_objects as go

    rows = _legend_rows(traces)
    height = max(height + _LEGEND_ROW * max(rows - 2, 0), 2 * _LEGEND_ROW * rows)
    figure = go.Figure(list(traces))
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        **layout,
    )
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return figure


_LEGEND_ROW = 20  # pixels; a legend takes half of a figure's height at most, and is scrolled beyond.


def _legend_rows(traces: Sequence[Any]) -> int:
    """The rows of a legend on a laptop, in which every entry is as wide as the longest name."""
    shown = [trace for trace in traces if isinstance(trace, Mapping) and trace.get("showlegend", True)]
    names = [str(trace["name"]) for trace in shown if "name" in trace]
    columns = max(int(900 // (60 + 6 * max(map(len, names), default=0))), 1)
    return -(-len(names) // columns)


def look(number: int) -> dict[str, Any]:
    """The line of the series with a number: colours first, then dashes."""
    dash = DASHES[number // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "dash": dash}


def faint(number: int) -> str:
    """The colour of the band of a series."""
    colour = COLOURS[number % len(COLOURS)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def percent(value: float | None, *, signed: bool = False) -> str:
    """A share in per cent with one decimal, or a dash where there is none."""
    if value is None:
        return "–"
    return f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"


def differing(values: Sequence[Mapping[str, str]]) -> list[str]:
    """A short text for each of several descriptions: the values that are not the same in all of them.

    >>> differing([{"method": "protonet", "shots": "1"}, {"method": "protonet", "shots": "5"}])
    ['shots 1', 'shots 5']
    >>> differing([{"method": "protonet", "fusion": ""}])
    ['protonet']
    """
    keys = list(dict.fromkeys(key for each in values for key in each))
    apart = [key for key in keys if len({each.get(key, "") for each in values}) > 1]
    bare = ("method", "modalities", "settings")
    told = (
        [key for key in keys if key in apart or key == "method"] if "method" in apart or not apart else apart
    )
    return [
        ", ".join(each[key] if key in bare else f"{key} {each[key]}" for key in told if each.get(key))
        for each in values
    ]


def level(share: float) -> dict[str, Any]:
    """The dashed line at a share, in a figure whose axis is in per cent."""
    height = {"y0": 100 * share, "y1": 100 * share}
    dashed = {"color": "#7F7F7F", "dash": "dash", "width": 1}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, **height, "line": dashed}
