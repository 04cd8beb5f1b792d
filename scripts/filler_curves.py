"""The curves of accuracy by the share of clips that lack a modality, a filler each, from the tables of space.json."""

from __future__ import annotations

from collections.abc import Sequence

from figures.curves import Panel, Row, svg
from figures.data import Data

FILLERS, WHOLE = "space-fillers", "space-modalities"
HEAD, SHOTS = "ProtoNet-EC", 5
BOTH = "both -> both"
SIDES = ("queries", "supports", "all clips")


def filler_curves(data: Data, rules: Sequence[str]) -> str | None:
    """The SVG text: a row a modality, a panel a side, a curve a rule; None where nothing of it is measured.

    At rate 0 nothing is filled, so that the curves of a panel begin at one accuracy.
    """
    values = {
        (f.row, f.column): f.value
        for f in data.figures
        if f.table == FILLERS and f.details == HEAD and f.value is not None
    }
    whole = [
        f.value for f in data.figures if (f.table, f.row, f.column) == (WHOLE, f"{HEAD}, {SHOTS}-shot", BOTH)
    ]
    rows = []
    for lost in dict.fromkeys(row.rpartition(" without ")[2] for row, _ in values):
        mine = {key: value for key, value in values.items() if key[0].endswith(f" without {lost}")}
        panels = [
            Panel(
                axis=f"share of {side} without {lost}",
                curves={rule: points_of(mine, side, rule, whole) for rule in rules},
            )
            for side in SIDES
        ]
        low = 10 * (min(mine.values()) // 10)
        rows.append(Row(title=f"Accuracy in % of {HEAD}, 5-way {SHOTS}-shot", panels=panels, low=low))
    return svg(rows, rules) if rows else None


def points_of(
    values: dict[tuple[str, str], float], side: str, rule: str, whole: Sequence[float | None]
) -> list[tuple[float, float]]:
    """A rule's accuracy by the share of a side's clips that lack the modality, from 0 to 1; none if only 0 is known."""
    found = []
    for (row, column), value in values.items():
        percent, _, rest = row.partition(" % of ")
        if column == rule and rest.startswith(f"{side} without "):
            found.append((float(percent) / 100, value))
    return sorted([*((0.0, each) for each in whole if each is not None), *found]) if found else []
