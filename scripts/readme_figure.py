"""Draw docs/figures/demo.svg, the README's figure: accuracy on the demo set's events by method and modality.

    python scripts/readme_figure.py            draw it from docs/results/demo.json
    python scripts/readme_figure.py --check    exit 1 if the figure is not what the data gives

The script writes plain SVG itself, so that the same data give the same bytes whatever is installed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parents[1] / "docs"
TABLE, COLUMN, CHANCE = "demo-events", "event", 20.0
LABELS, BAR, STEP, TOP, SCALE = 236, 20, 30, 44, 4.6  # pixels; SCALE is pixels a per cent
SINGLE, JOINED, INK = "#9db8c7", "#2f6690", "#444"


def main() -> None:
    """Draw the figure, or compare it with the data."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 if the figure is stale")
    check = options.parse_args().check
    place, text = (
        DOCS / "figures" / "demo.svg",
        figure_of(json.loads((DOCS / "results" / "demo.json").read_text())),
    )
    if not check:
        place.parent.mkdir(exist_ok=True)
        place.write_text(text, encoding="utf-8")
    elif not place.is_file() or place.read_text(encoding="utf-8") != text:
        sys.exit(f"{place} is not up to date; run python scripts/readme_figure.py.")


def figure_of(data: Mapping[str, Any]) -> str:
    """The SVG text of the table's rows, in their order."""
    return svg([row for row in data["rows"] if (row["table"], row["column"]) == (TABLE, COLUMN)])


def svg(rows: Sequence[Mapping[str, Any]]) -> str:
    """The SVG text of horizontal bars, each with its row's name, value and half width of the interval."""
    height, bottom = TOP + STEP * len(rows) + 34, TOP + STEP * len(rows)
    chance = LABELS + SCALE * CHANCE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" viewBox="0 0 760 {height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="12" y="22" font-size="14" fill="{INK}">Accuracy on events of the demo set, 5-way 1-shot, %</text>',
    ]
    for number, row in enumerate(rows):
        parts += bar(row, TOP + STEP * number)
    parts += [
        f'<line x1="{chance:.1f}" x2="{chance:.1f}" y1="{TOP - 6}" y2="{bottom}" stroke="{INK}" '
        'stroke-dasharray="3 3"/>',
        f'<text x="{chance:.1f}" y="{bottom + 18}" text-anchor="middle" fill="{INK}">chance</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def bar(row: Mapping[str, Any], top: int) -> list[str]:
    """The elements of one row whose bar begins at height ``top``."""
    value, interval, middle = row["value"], row["interval"], top + BAR / 2
    end, low, high = (LABELS + SCALE * x for x in (value, value - interval, value + interval))
    colour = SINGLE if row["row"].startswith("ProtoNet, ") else JOINED
    return [
        f'<text x="{LABELS - 8}" y="{middle + 4.5:.1f}" text-anchor="end" fill="{INK}">{escape(row["row"])}</text>',
        f'<rect x="{LABELS}" y="{top}" width="{end - LABELS:.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle:.1f}" y2="{middle:.1f}" stroke="{INK}" stroke-width="2"/>',
        f'<text x="{high + 8:.1f}" y="{middle + 4.5:.1f}" fill="{INK}">{value:.1f} ± {interval:.1f}</text>',
    ]


if __name__ == "__main__":
    main()
