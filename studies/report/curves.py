"""Accuracy along an axis: the rate at which a modality is missing, the number of shots, the steps of a training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..task_text import described_task
from .data import ReportRun, StudyData
from .parts import COLOURS, Figure, Section, differing, faint, level, look, plot_of

MOST_CURVES = 24
"""A figure with more curves than this cannot be read; the most accurate ones are shown."""


@dataclass(frozen=True)
class Curve:
    """The runs that differ in one value alone, along that value."""

    name: str
    """The name of the curve in the legend."""
    head: str
    """What tells the curve's head from the others of the study."""
    points: Sequence[tuple[float, ReportRun]]
    """The value and the run of each point, by rising value."""

    @property
    def mean(self) -> float:
        """The mean accuracy of the points."""
        return sum(run.accuracy for _, run in self.points) / len(self.points)


def missing_section(data: StudyData) -> Section | None:
    """How the accuracy falls as a modality goes missing; None where no study was made of that."""
    figures = []
    wanted = sorted({(m.modality, m.side) for run in data.runs for m in run.protocol.missing if m.rate > 0})
    for modality, side in wanted:

        def rate(run: ReportRun, key: tuple[str, str] = (modality, side)) -> float | None:
            rates: dict[tuple[str, str], float] = {
                (m.modality, m.side): m.rate for m in run.protocol.missing if m.rate > 0
            }
            if set(rates) - {key} or key[0] not in run.modalities:
                return None
            return rates.get(key, 0.0)

        for apart, curves in figures_along(data.runs, rate, "missing"):
            floor = _floor(data.runs, modality, curves)
            title = f"{modality} missing on {_sides(side)}; {apart}"
            plot = _bands(curves, "share of clips that lack it", "%", floor)
            words = f"Bands are 95 % intervals over clips.{guessing(curves)}"
            if floor is not None:
                words += (
                    f" The dashed line is the floor: the best run without training that never has {modality}."
                )
            figures.append(Figure(title=title, plot=plot, caption=words))
    if not figures:
        return None
    return Section(name="missing", title="When a modality is missing", figures=figures)


def shots_section(data: StudyData) -> Section | None:
    """Accuracy by the number of supports of a class; None where no head was run with two numbers."""

    def shots(run: ReportRun) -> float | None:
        value = run.protocol.k_shot
        return float(value) if isinstance(value, int) else None

    figures = [
        Figure(
            title=f"Accuracy by shots; {apart}",
            plot=_lines(curves, "supports of a class"),
            caption=f"Bars are 95 % intervals over clips.{guessing(curves)}",
        )
        for apart, curves in figures_along(data.runs, shots, "k_shot")
    ]
    return Section(name="shots", title="Shots", figures=figures) if figures else None


def learning_section(data: StudyData) -> Section | None:
    """The training of each head that was trained in a run: loss, and accuracy on val classes where there are any."""
    trained = [(run, (run.metrics.get("training") or {}).get("curve") or []) for run in data.runs]
    trained = [(run, curve) for run, curve in trained if len(curve) > 1]
    shown = trained[:MOST_CURVES]
    figures = []
    for key, title in (("val", "accuracy on val classes"), ("loss", "training loss")):
        traces = []
        for number, (run, curve) in enumerate(shown):
            points = [
                (entry["step"], entry[key]) for entry in curve if None not in map(entry.get, ("step", key))
            ]
            if points:
                factor = 100 if key == "val" else 1
                traces.append(_line(run.name, [(x, factor * y) for x, y in points], number))
        if traces:
            plot = plot_of(
                traces, xaxis_title="steps", yaxis_title=f"{title}{' in %' if key == 'val' else ''}"
            )
            figures.append(Figure(title=f"Learning: {title}", plot=plot))
    if not figures:
        return None
    left = len(trained) - len(shown)
    notes = (
        [f"{left} further trainings are not drawn; metrics.json of each run has its curve."] if left else []
    )
    text = "Heads that were taken from an earlier run have no curve here."
    return Section(name="learning", title="Learning curves", text=text, figures=figures, notes=notes)


def figures_along(
    runs: Sequence[ReportRun], axis: Callable[[ReportRun], float | None], field: str
) -> Iterable[tuple[str, list[Curve]]]:
    """The curves along a value of the protocol, by figure: a figure has the runs of one task but for that value."""
    figures: dict[str, dict[str, dict[float, ReportRun]]] = {}
    for run in runs:
        if (value := axis(run)) is None:
            continue
        values = {**run.protocol.to_dict(), field: None}
        if field != "missing":
            values["missing"] = sorted(str(m) for m in run.protocol.missing if m.rate > 0)
        place = json.dumps([run.dataset, run.metrics.get("fingerprint"), values], default=str)
        head = json.dumps(_identity(run), default=str)
        figures.setdefault(place, {}).setdefault(head, {}).setdefault(value, run)
    for found in figures.values():
        several = {head: sorted(points.items()) for head, points in found.items() if len(points) > 1}
        if not several:
            continue
        names = _names([points[0][1] for points in several.values()])
        curves = [Curve(name, head, points) for name, (head, points) in zip(names, several.items())]
        best = sorted(curves, key=lambda curve: -curve.mean)[:MOST_CURVES]
        yield _apart(best[0].points[0][1], field), best


def _identity(run: ReportRun) -> list[Any]:
    """What tells the heads of a figure apart."""
    data = ("train_modalities", "train_missing", "train_dataset")
    keys = (*data, "when_missing", "settings", "words", "normalise", "dtype", "train_seed")
    return [run.method, run.modalities, {key: run.config.get(key) for key in keys}]


def _names(runs: Sequence[ReportRun]) -> list[str]:
    """What tells the heads of a figure apart; the seed of the training where nothing else does."""
    told = [
        {"method": run.method, "modalities": "+".join(run.modalities), "settings": run.settings}
        for run in runs
    ]
    names = differing(told)
    return [
        f"{name}, seed {run.config.get('train_seed', 0)}" if names.count(name) > 1 else name
        for name, run in zip(names, runs)
    ]


def _apart(run: ReportRun, field: str) -> str:
    """What the task of a figure is, without the value that the figure's axis has."""
    protocol = replace(run.protocol, missing=()) if field == "missing" else run.protocol
    parts = described_task(protocol).split("; ")
    if field == "k_shot":
        parts[0] = parts[0].partition(" ")[0]
    return f"{run.dataset}, {'; '.join(parts)}"


def _floor(runs: Sequence[ReportRun], modality: str, curves: Sequence[Curve]) -> float | None:
    """The accuracy of the best run without training on the same task that never has the modality."""
    like = curves[0].points[0][1]
    fair = [
        run.accuracy
        for run in runs
        if run.free and modality not in run.modalities and run.modalities and _same_but_missing(run, like)
    ]
    return max(fair, default=None)


def _same_but_missing(run: ReportRun, other: ReportRun) -> bool:
    one, two = (replace(each.protocol, missing=()) for each in (run, other))
    missing = any(m.rate > 0 for m in run.protocol.missing)
    return run.dataset == other.dataset and one == two and not missing


def _sides(side: str) -> str:
    return {"both": "supports and queries", "support": "supports", "query": "queries"}[side]


def guessing(curves: Sequence[Curve]) -> str:
    """The sentence that says what guessing reaches; empty where episodes differ in ways."""
    way = curves[0].points[0][1].protocol.n_way
    return f" Guessing reaches {100 / way:.0f} %." if isinstance(way, int) and way else ""


def _line(name: str, points: Sequence[tuple[float, float]], number: int, **more: Any) -> Mapping[str, Any]:
    """A series with points, whose colour and dash are its number's."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [x for x, _ in points],
        "y": [y for _, y in points],
        "line": look(number),
        **more,
    }


def _lines(curves: Sequence[Curve], axis: str) -> Any:
    """Curves with error bars over clips."""
    traces = [barred(curve, number, over="ci95_clips") for number, curve in enumerate(curves)]
    return plot_of(traces, xaxis=labelled(axis, curves), yaxis_title="accuracy in %")


def barred(curve: Curve, number: int, *, over: str, **more: Any) -> Mapping[str, Any]:
    """The series of a curve with error bars, whose half widths the runs have under the name ``over``."""
    points = [(x, 100 * run.accuracy) for x, run in curve.points]
    widths = [100 * (run.number(over) or 0.0) for _, run in curve.points]
    bars = {"type": "data", "array": widths, "width": 3, "thickness": 1}
    return _line(curve.name, points, number, error_y=bars, **more)


def labelled(axis: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """An x axis with a mark at each point of the curves."""
    places = sorted({x for curve in curves for x, _ in curve.points})
    return {"title": {"text": axis}, "tickvals": places, "ticktext": [f"{x:.3g}" for x in places]}


def _bands(curves: Sequence[Curve], axis: str, unit: str, floor: float | None) -> Any:
    """Curves with bands over clips."""
    traces: list[Mapping[str, Any]] = []
    for number, curve in enumerate(curves):
        points = [(100 * x, 100 * run.accuracy) for x, run in curve.points]
        widths = [100 * (run.number("ci95_clips") or 0.0) for _, run in curve.points]
        upper = [y + width for (_, y), width in zip(points, widths)]
        lower = [y - width for (_, y), width in zip(points, widths)]
        x = [x for x, _ in points]
        traces.append(
            {
                "type": "scatter",
                "x": [*x, *reversed(x)],
                "y": [*upper, *reversed(lower)],
                "fill": "toself",
                "fillcolor": faint(number),
                "line": {"width": 0, "color": COLOURS[number % len(COLOURS)]},
                "hoverinfo": "skip",
                "showlegend": False,
                "legendgroup": curve.name,
            }
        )
        traces.append(_line(curve.name, points, number, legendgroup=curve.name))
    labels = {"title": {"text": f"{axis} in {unit}"}}
    shapes = [] if floor is None else [level(floor)]
    return plot_of(traces, xaxis=labels, yaxis_title="accuracy in %", shapes=shapes)
