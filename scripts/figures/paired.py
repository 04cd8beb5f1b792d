"""Paired differences of runs on the same episodes, with half widths over draws, over clips and over classes.

Over several class splits, which share clips and classes, a half width is the mean of those of the splits: the standard
deviation of a mean is never above the mean of the standard deviations, whatever is shared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fsmm.errors import FsmmError
from fsmm.studies.compare import compare
from fsmm.studies.grid.store import Row, Study
from fsmm.studies.pairs import Estimate, Pair
from fsmm.studies.stored_head import StoredHead

from .data import OVER, Widths


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A paired difference, and its half widths, in points."""

    points: float
    widths: Widths


def difference_of_runs(runs: Sequence[Path], base: Sequence[Path]) -> Difference:
    """The difference of one head from another by their run folders, in which the seeds of training count.

    runs, base: the folders of one head each, which differ in the seed of its training alone.
    Exits with a sentence if the runs cannot be paired.
    """
    try:
        pairs = compare([*runs, *base], draws=True).pairs
    except FsmmError as error:
        sys.exit(str(error))
    if len(pairs) != 1:
        sys.exit(
            f"{len(runs)} and {len(base)} runs are more than two heads; give those of two, seed by seed."
        )
    return Difference(points=100 * pairs[0].difference, widths=widths_of(pairs[0]))


def widths_of(pair: Pair) -> Widths:
    """The half widths of a pair, in points; None for what was not looked for or has no value, and for a bound."""
    return Widths(**{kind: _width(getattr(pair, kind)) for kind in OVER})


def _width(found: Estimate | None) -> float | None:
    return None if found is None or found.one_sided or found.ci95 is None else 100 * found.ci95


def difference_of_rows(study: Study, rows: Sequence[Row], base: Sequence[Row]) -> Difference | None:
    """The difference of two heads by the rows of a study that are their seeds; None where one has no row."""
    if not rows or not base:
        return None
    return difference_of_runs(seeds_of(study, rows), seeds_of(study, base))


def seeds_of(study: Study, rows: Sequence[Row]) -> list[Path]:
    """The run folders of a head, one a seed; the first alone for a head that learns nothing."""
    config, metrics, _ = study.load(rows[0])
    trained = StoredHead(config=config, metrics=metrics, arrays={}).trained
    return [study.run_folder(row) for row in (rows if trained else rows[:1])]


def mean_difference(found: Sequence[Difference]) -> Difference:
    """The mean over class splits; a half width that one of them lacks is not known.

    Heads that decide every query of a split alike have no half width there, and add none to the mean.
    """
    widths = {kind: [each.widths.of(kind) for each in found if each.points] for kind in OVER}
    means = {
        kind: sum(w for w in of if w is not None) / len(found)
        for kind, of in widths.items()
        if of and None not in of
    }
    return Difference(points=_mean([each.points for each in found]), widths=Widths(**means))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
