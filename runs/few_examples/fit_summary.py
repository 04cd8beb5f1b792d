"""What a fit found, in a few lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .calibration import clips_needed

LEVELS = (0.2, 0.1, 0.05)
"""The error rates of sets that a summary speaks of."""


def summary_lines(report: Mapping[str, Any]) -> list[str]:
    """The lines of a fit's report."""
    counts = report["classes"]
    sizes = sorted(set(counts.values()))
    each = f"{sizes[0]} each" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} each"
    lines = [
        f"{len(counts)} classes, {report['examples']} examples ({each}): "
        f"{', '.join(f'{name} {count}' for name, count in counts.items())}",
        f"head: {report['head']}{_named(report)}{_chosen(report['selection'])}",
    ]
    return lines + _estimates(report)


def _named(report: Mapping[str, Any]) -> str:
    words = report.get("words")  # Models of earlier versions do not speak of it.
    return f", class names by {words}" if words else ""


def _chosen(selection: Mapping[str, Any]) -> str:
    tried = len(selection["candidates"])
    return f", chosen among {tried} by leave-one-out" if tried > 1 else ""


def _alone(counts: Mapping[str, int]) -> str:
    return "a class" if max(counts.values()) == 1 else "of every class but one"


def _estimates(report: Mapping[str, Any]) -> list[str]:
    selection = report["selection"]
    if not selection["examples"]:
        return [
            f"With one example {_alone(report['classes'])} nothing can be estimated: neither accuracy nor calibration, "
            "and --reject needs more examples; give some with --add."
        ]
    low, high = selection["interval"]
    corrected = ", corrected for having chosen" if len(selection["candidates"]) > 1 else ""
    lines = [
        f"expected accuracy {_percent(selection['accuracy'])} (95 %: {100 * low:.0f} to {100 * high:.0f}) on clips "
        f"like these, by leave-one-out of {selection['examples']} examples{corrected}"
    ]
    single = [name for name, count in report["classes"].items() if count == 1]
    if single:
        lines.append(f"nothing is known of classes with one example: {', '.join(single)}")
    if selection["rival"] is not None:
        lines.append(_sureness(selection))
    pairs = [f"{true} taken for {said} ({count} of {size})" for true, said, count, size in report["confused"]]
    lines.append(f"confused: {'; '.join(pairs) or 'none of the examples'}")
    worth = [
        f"{name} {100 * entry['gain']:+.1f} ± {100 * entry['interval']:.1f} points"
        for name, entry in report["modalities"].items()
    ]
    if worth:
        lines.append(f"what each modality adds: {', '.join(worth)}")
    return [*lines, *_calibration(report)]


def _sureness(selection: Mapping[str, Any]) -> str:
    said, gain = "sure" if selection["is_sure"] else "not sure", 100 * selection["gain"]
    where = "behind" if gain >= 0 else "ahead"
    return (
        f"the choice is {said}: the next is {selection['rival']}, {abs(gain):.1f} ± "
        f"{100 * selection['gain_interval']:.1f} points {where} on the same examples"
    )


def _calibration(report: Mapping[str, Any]) -> list[str]:
    found, unknown = report["calibration"], report["unknown"]
    possible = [f"{100 * (1 - e):g} %" for e in LEVELS if found["clips"] >= clips_needed(e)]
    lacking = [
        f"{100 * (1 - e):g} % needs {clips_needed(e)}" for e in LEVELS if found["clips"] < clips_needed(e)
    ]
    sets = f"sets of classes at {', '.join(possible) or 'no level yet'}"
    if lacking:
        sets += f" (of {found['clips']} calibration clips; {', '.join(lacking)})"
    lines = [
        f"calibration error {_percent(found['error'])} (before: {_percent(found['error_before'])}); {sets}"
    ]
    if unknown["area"] is not None:
        lines.append(
            f"clips of no class: told from known ones with an area under the curve of {unknown['area']:.2f} on base "
            "classes"
        )
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
