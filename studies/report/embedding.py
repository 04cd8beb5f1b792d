"""A two-dimensional map of each stream's features: the first two principal components, coloured by class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FsmmError
from .data import ReportRun, StudyData
from .parts import COLOURS, Figure, Section, plot_of

if TYPE_CHECKING:
    from ...cache.bank import FeatureBank

MOST_CLIPS = 2000
"""A map has this many clips at most, taken at equal steps."""
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


def map_section(data: StudyData, cache: Path | None) -> Section | None:
    """A map for each stream that the study's runs were made on, of the classes that they were tested on.

    cache: the cache to read; None reads the one that a run names, and there is no section where it is gone.
    """
    figures, notes, seen = [], [], set()
    for run in data.runs:
        place = cache_of(run, cache)
        for stream in sorted((run.metrics.get("streams") or {}).values()):
            key = (run.dataset, run.protocol.split, run.protocol.label_set, run.protocol.class_split, stream)
            if place is None or key in seen:
                continue
            seen.add(key)
            try:
                figures.append(_figure(run, place, stream))
            except FsmmError as error:
                notes.append(f"There is no map of {stream} of {run.dataset}: {error}")
    if not figures and not notes:
        return None
    text = "Each clip is the mean of its steps, scaled to length one; the axes are the first two principal components "
    text += "of these clips. Clips far apart here are far apart, but clips close together here need not be."
    notes.append("The cache holds no thumbnails, so the hover text has the clip's id and class alone.")
    return Section(name="map", title="Map of the features", text=text, figures=figures, notes=notes)


def cache_of(run: ReportRun, cache: Path | None) -> Path | None:
    """The cache that holds a run's data set: the given one, else that of the run; None where it is not there."""
    place = cache if cache is not None else Path(str(run.config.get("cache") or ""))
    return place if (place / run.dataset).is_dir() and run.dataset else None


def components(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first two principal components of clips [n, D], as places [n, 2], and the share of variance of each [2]."""
    centred = x - x.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    variance = values**2
    return left[:, :2] * values[:2], variance[:2] / max(float(variance.sum()), 1e-12)


def _figure(run: ReportRun, cache: Path, stream: str) -> Figure:
    from ...cache.bank import FeatureBank
    from ...cache.catalog import Catalog

    protocol = run.protocol
    bank = FeatureBank.load(
        cache,
        [stream],
        protocol.split,
        dataset=run.dataset,
        label_set=protocol.label_set,
        class_split=protocol.class_split,
        clip_split=protocol.clip_split,
        words=None,
    )
    if bank.multi:
        raise FsmmError("its clips have several labels.")
    x, rows = _pooled(bank)
    if len(x) < 3:
        raise FsmmError("fewer than three clips have it.")
    places, shares = components(x)
    ids = Catalog.read(cache / run.dataset).clip_id
    traces: list[dict[str, Any]] = []
    label = bank.label.numpy()[rows]
    for number, name in enumerate(bank.class_names):
        own = np.flatnonzero(label == number)
        if not len(own):
            continue
        marker = {
            "size": 6,
            "opacity": 0.75,
            "color": COLOURS[number % len(COLOURS)],
            "symbol": _SYMBOLS[number // len(COLOURS) % len(_SYMBOLS)],
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": places[own, 0].round(4).tolist(),
                "y": places[own, 1].round(4).tolist(),
                "text": [str(ids[row]) for row in bank.clip_row[rows[own]]],
                "hovertemplate": "%{text}<extra>" + name.replace("<", "&lt;") + "</extra>",
                "marker": marker,
            }
        )
    axes = [f"component {i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares)]
    plot = plot_of(traces, height=520, xaxis_title=axes[0], yaxis_title=axes[1])
    caption = f"{len(x):,} of {len(bank):,} clips of the {protocol.split} classes."
    return Figure(title=f"{stream}; {run.dataset}", plot=plot, caption=caption)


def _pooled(bank: FeatureBank) -> tuple[np.ndarray, np.ndarray]:
    """The features [m, D] of clips of length one, float64, and the numbers of the clips in the bank, int64 [m]."""
    table = next(iter(bank.pooled().normalised("l2").tables.values()))
    rows = np.flatnonzero(table.present.numpy())
    if len(rows) > MOST_CLIPS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_CLIPS).astype(np.int64)]
    import torch

    return table.gather(torch.from_numpy(rows)).x[:, 0].double().numpy(), rows
