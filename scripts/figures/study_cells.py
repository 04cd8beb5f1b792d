"""Figures of the tables that one study makes of its page: cells of runs, and of outcomes that are made of several runs.

The half width of an accuracy is over clips, that of a difference over draws, clips and classes. Both count the seeds of
training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fsmm.runs.over_clips import clip_uncertainty
from fsmm.runs.redraw import Source, outcomes
from fsmm.runs.statistics import Draws, Uncertainty
from fsmm.studies.grid.store import Row, Study
from fsmm.studies.pairs import pair_of_outcomes
from fsmm.studies.seeded_pairs import mean_over_seeds, over_draws
from fsmm.studies.stored_head import StoredHead

from .data import Figure, Widths
from .paired import Difference, difference_of_rows, widths_of


def draws_of(study: Study, row: Row) -> Draws:
    """The episodes of a run."""
    config, _, arrays = study.load(row)
    return Source.of_run(config, arrays).draws(0, len(arrays["accuracy"]))


def right(study: Study, row: Row) -> np.ndarray:
    """Whether each query of a run was classified rightly, bool [E, Q]."""
    config, _, arrays = study.load(row)
    queries = config["protocol"]["n_way"] * config["protocol"]["n_query"]
    return outcomes(arrays["right_bits"], queries)


def cell_of_outcomes(
    place: tuple[str, str, str], outcome: np.ndarray, draws: Draws, base: np.ndarray | None = None
) -> Figure:
    """The figure of outcomes [E, Q] of inductive heads, with the difference from others.

    place: the table, the row and the column.
    """
    width = _half_width(clip_uncertainty(outcome.astype(np.int8), draws, transductive=False))
    pair = None
    if base is not None:
        found = pair_of_outcomes(("one", "other"), outcome, base, draws, transductive=False)
        found.draws = over_draws([outcome.mean(1)], [base.mean(1)])
        pair = Difference(points=100 * found.difference, widths=widths_of(found))
    return figure(place, float(outcome.mean()), interval=width, pair=pair, episodes=len(outcome))


def cell_of_rows(
    study: Study, place: tuple[str, str, str], rows: Sequence[Row], base: Sequence[Row] = ()
) -> Figure:
    """The figure of a head, the mean over its runs of several seeds, with the difference from another head.

    place: the table, the row and the column.
    """
    metrics = [study.metrics(row) for row in rows]
    return figure(
        place,
        float(np.mean([each["accuracy"] for each in metrics])),
        interval=_over_clips(study, rows, metrics),
        pair=difference_of_rows(study, rows, base),
        episodes=metrics[0]["episodes"],
    )


def _over_clips(study: Study, rows: Sequence[Row], metrics: Sequence[Mapping[str, Any]]) -> float | None:
    """The half width over clips, and over training seeds where there are several; None where there is none."""
    if len(rows) == 1:
        width: float | None = metrics[0]["ci95_clips"]
        return width
    config, about, arrays = study.load(rows[0])
    head = StoredHead(config=config, metrics=about, arrays=arrays)
    seeds = [right(study, row) for row in rows]
    found = mean_over_seeds(seeds, draws_of(study, rows[0]), transductive=head.transductive)
    return _half_width(found.clips)


def _half_width(found: Uncertainty) -> float | None:
    return None if found.reason else found.half_width()


def against_chance(study: Study, place: tuple[str, str, str], row: Row, chance: float) -> Figure:
    """The figure of a run with the difference from chance, whose half widths are those of the accuracy itself."""
    metrics = study.metrics(row)
    own = {"draws": metrics["ci95"], "clips": metrics["ci95_clips"], "classes": metrics["ci95_classes"]}
    widths = Widths(**{kind: None if width is None else 100 * width for kind, width in own.items()})
    pair = Difference(points=100 * (metrics["accuracy"] - chance), widths=widths)
    return figure(
        place,
        metrics["accuracy"],
        interval=metrics["ci95_clips"],
        pair=pair,
        episodes=metrics["episodes"],
    )


def figure(
    place: tuple[str, str, str],
    value: float,
    *,
    interval: float | None = None,
    pair: Difference | None = None,
    episodes: int,
) -> Figure:
    """One figure without a commit. value and interval, its half width over clips: shares of one.

    place: the table, whose name begins with that of its page and study, the row and the column.
    """
    table, row, column = place
    page = page_of(table)
    return Figure(
        page=page,
        table=table,
        row=row,
        column=column,
        part=None,
        details=None,
        value=round(100 * value, 2),
        unit="%",
        interval=None if interval is None else round(100 * interval, 2),
        interval_over=None if interval is None else "clips",
        difference=None if pair is None else round(pair.points, 2),
        difference_widths=Widths() if pair is None else pair.widths.rounded(2),
        episodes=episodes,
        command=f"fsmm sweep examples/{page}.yaml --cache CACHE --out {page}",
        commit=None,
        note=None,
        run=None,
    )


def page_of(table: str) -> str:
    """The name of the page of a table, which is that of its study, too."""
    return table.partition("-")[0]
