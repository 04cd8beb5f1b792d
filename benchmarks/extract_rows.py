"""The rows of benchmarks/extract.py: those of a rate, and those that have goals."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
INT8 = "-int8"
"""The end of the name of an encoder in 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One extraction beside one plain loop, whose clips a second are ``plain``."""

    plain: float
    report: Any
    watch: Any

    @property
    def rate(self) -> float:
        """The clips a second of the extraction."""
        return float(self.report.clips_per_second)


def is_int8(chosen: Mapping[str, Sequence[str]]) -> bool:
    return any(name.endswith(INT8) for name in chosen.get("frame", ()))


def with_floats(chosen: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The same encoders, with those of frames in float32."""
    return {modality: [name.removesuffix(INT8) for name in names] for modality, names in chosen.items()}


def rows_against_goals(
    turns: Sequence[Turn], chosen: Mapping[str, Sequence[str]], device: str, rates: Mapping[str, float]
) -> Iterator[Row]:
    """The rows that have goals, and the memory."""
    from fsmm.machine.cores import default_workers

    goal = 5.0 if device != "cpu" else 3.0 if is_int8(chosen) else 1.6
    ratio = statistics.median(turn.rate / turn.plain for turn in turns)
    what = "times the plain loop with float frames" if is_int8(chosen) else "times the plain loop"
    yield figure_row(what, ratio, f">= {goal:g}", is_met=ratio >= goal)
    if device == "cpu":
        share = statistics.median(_against_cores(turn.report, default_workers()) for turn in turns)
        yield figure_row("wall / (core-seconds / cores)", share, "<= 1.15", is_met=share <= 1.15)
    else:
        yield from _of_gpu([turn.watch for turn in turns])
    busy = statistics.median(turn.report.encoder_busy for turn in turns)
    yield figure_row("share of the time in which encoders run, start included", busy)
    if device != "cpu":
        yield from _busy(turns, rates)
    yield figure_row("peak memory of all processes, MB", max(turn.watch.peak_mb for turn in turns))


def _busy(turns: Sequence[Turn], rates: Mapping[str, float]) -> Iterator[Row]:
    """How far the GPU was used: the goal is one where the workers prepare more clips than it can encode."""
    allows = rates["one core"] * turns[0].report.workers >= rates["encoders"]
    begun = statistics.median(turn.report.encoder_busy_once_begun or 0.0 for turn in turns)
    wanted = ">= 0.9" if allows else ">= 0.9 where decoding allows, which it does not here"
    met = begun >= 0.9 if allows else None
    yield figure_row(
        "share of the time in which encoders run, from first batch to last", begun, wanted, is_met=met
    )
    share = statistics.median(turn.rate for turn in turns) / rates["encoders"]
    yield figure_row("clips/s of all, start included, over those of the encoders alone", share)


def _against_cores(report: Any, cores: int) -> float:
    """The wall time of an extraction, over what it would be if all cores did nothing but its stages."""
    work = sum(
        report.seconds.get(stage, 0.0) for stage in ("decode", "prepare", "encode", "write", "passport")
    )
    return float((report.done + report.failed) / report.clips_per_second / (work / cores))


def _of_gpu(watches: Sequence[Any]) -> Iterator[Row]:
    import torch

    yield figure_row("peak GPU memory, MB", torch.cuda.max_memory_reserved() / 2**20)
    shares = [share for watch in watches if (share := watch.steady_gpu_busy()) is not None]
    if shares:
        busy = statistics.median(shares)
        yield figure_row("GPU busy, % (nvidia-smi)", busy, ">= 90 where decoding allows", is_met=busy >= 90)


def rate_row(stage: str, rate: float, encoders: Sequence[Any], *, note: str = "") -> Row:
    """A row of a rate. encoders: those whose frames are counted."""
    needs = [encoder.need for encoder in encoders if hasattr(encoder.need, "segments")]
    frames = sum((need.segments or 8) * need.length for need in needs)
    per_second = rate * frames if frames else None
    return {
        "stage": stage,
        "clips_per_second": rate,
        "frames_per_second": per_second,
        "value": None,
        "goal": "",
        "note": note,
    }


def figure_row(what: str, value: float, goal: str = "", *, is_met: bool | None = None) -> Row:
    told = "" if is_met is None else "met" if is_met else "missed"
    none = dict.fromkeys(("clips_per_second", "frames_per_second"))
    return {"stage": what, **none, "value": value, "goal": goal, "note": told}
