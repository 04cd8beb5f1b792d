"""Two-dimensional maps of each stream's features, coloured by class: principal components, t-SNE and UMAP."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import FsmmError, UsageError
from .data import ReportRun, StudyData
from .parts import COLOURS, Figure, Section, plot_of

if TYPE_CHECKING:
    from ...cache.bank import FeatureBank

MOST_CLIPS = 2000
"""A map has this many clips at most, taken at equal steps."""
MOST_PICTURES = 2_500_000
"""The characters that the pictures of a page may take."""
MAPS = {"pca": "numpy", "tsne": "sklearn", "umap": "umap"}
"""The kinds of maps, with the package that makes each."""
_SYMBOLS = ("circle", "square", "diamond", "cross", "x", "triangle-up")


@dataclass(frozen=True)
class Clips:
    """The clips of a map: features [n, D] float64, ids, and labels [n] as places in the names of classes."""

    x: np.ndarray
    ids: Sequence[str]
    label: np.ndarray
    class_names: Sequence[str]
    of: str
    """How many clips of how many are shown, and of which classes."""


def check_maps(maps: Sequence[str]) -> None:
    """Raise UsageError for a kind of map that there is not, or whose package is not installed."""
    for name in maps:
        if name not in MAPS:
            raise UsageError(f"There is no map {name!r}; there are {', '.join(MAPS)}.")
        if find_spec(MAPS[name]) is None:
            package = {"sklearn": "scikit-learn", "umap": "umap-learn"}[MAPS[name]]
            raise UsageError(f"A map by {name} needs {package}; `pip install {package}` brings it.")


def map_section(data: StudyData, cache: Path | None, maps: Sequence[str]) -> Section | None:
    """The maps of each stream that the study's runs were made on, of the classes that they were tested on.

    cache: the cache to read; None reads the one that a run names, and there is no section where it is gone. maps: the
    kinds of maps.
    """
    figures, notes, seen = [], [], set()
    pictures: dict[str, str] = {}
    for run in data.runs:
        place = cache_of(run, cache)
        for stream in sorted((run.metrics.get("streams") or {}).values()):
            key = (run.dataset, run.protocol.split, run.protocol.label_set, run.protocol.class_split, stream)
            if place is None or key in seen:
                continue
            seen.add(key)
            try:
                clips = _clips(run, place, stream)
            except FsmmError as error:
                notes.append(f"There is no map of {stream} of {run.dataset}: {error}")
                continue
            figures += [_figure(clips, f"{stream}; {run.dataset}", name) for name in maps]
            _add_pictures(pictures, place / run.dataset, clips.ids)
    if not figures and not notes:
        return None
    text = "Each clip is the mean of its steps, scaled to length one. On principal components, clips far apart are far "
    text += "apart, but clips close together need not be close."
    if set(maps) - {"pca"}:
        text += " t-SNE and UMAP keep neighbours together; distances between groups mean nothing there."
    notes.append(_about_pictures(len(pictures)))
    return Section(
        name="map", title="Map of the features", text=text, figures=figures, notes=notes, pictures=pictures
    )


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


def _pca(x: np.ndarray) -> tuple[np.ndarray, list[str]]:
    places, shares = components(x)
    return places, [
        f"component {i + 1} ({100 * share:.0f} % of the variance)" for i, share in enumerate(shares)
    ]


def _tsne(x: np.ndarray) -> tuple[np.ndarray, list[str]]:
    from sklearn.manifold import TSNE

    made = TSNE(init="pca", random_state=0, perplexity=min(30.0, (len(x) - 1) / 3))
    return np.asarray(made.fit_transform(x.astype(np.float32))), ["t-SNE, first axis", "t-SNE, second axis"]


def _umap(x: np.ndarray) -> tuple[np.ndarray, list[str]]:
    import umap

    made = umap.UMAP(random_state=0, n_jobs=1, n_neighbors=min(15, len(x) - 1))
    return np.asarray(made.fit_transform(x)), ["UMAP, first axis", "UMAP, second axis"]


_WAYS: dict[str, Callable[[np.ndarray], tuple[np.ndarray, list[str]]]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
}


def _clips(run: ReportRun, cache: Path, stream: str) -> Clips:
    """The clips of a stream that a run was tested on. Raises FsmmError where no map can be made of them."""
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
    ids = Catalog.read(cache / run.dataset).clip_id
    return Clips(
        x=x,
        ids=[str(ids[row]) for row in bank.clip_row[rows]],
        label=bank.label.numpy()[rows],
        class_names=bank.class_names,
        of=f"{len(x):,} of {len(bank):,} clips of the {protocol.split} classes.",
    )


def _figure(clips: Clips, title: str, name: str) -> Figure:
    """The map of clips by one of the ways."""
    places, axes = _WAYS[name](clips.x)
    traces: list[dict[str, Any]] = []
    for number, class_name in enumerate(clips.class_names):
        own = np.flatnonzero(clips.label == number)
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
                "name": class_name,
                "x": places[own, 0].round(4).tolist(),
                "y": places[own, 1].round(4).tolist(),
                "text": [clips.ids[place] for place in own.tolist()],
                "hovertemplate": "%{text}<extra>" + class_name.replace("<", "&lt;") + "</extra>",
                "marker": marker,
            }
        )
    plot = plot_of(traces, height=520, xaxis_title=axes[0], yaxis_title=axes[1])
    return Figure(title=title, plot=plot, caption=clips.of)


def _pooled(bank: FeatureBank) -> tuple[np.ndarray, np.ndarray]:
    """The features [m, D] of clips of length one, float64, and the numbers of the clips in the bank, int64 [m]."""
    table = next(iter(bank.pooled().normalised("l2").tables.values()))
    rows = np.flatnonzero(table.present.numpy())
    if len(rows) > MOST_CLIPS:
        rows = rows[np.linspace(0, len(rows) - 1, MOST_CLIPS).astype(np.int64)]
    import torch

    return table.gather(torch.from_numpy(rows)).x[:, 0].double().numpy(), rows


def _add_pictures(pictures: dict[str, str], folder: Path, ids: Sequence[str]) -> None:
    """Add the pictures of clips that the page lacks, in Base64, as long as there is room for them."""
    from ...cache.thumbnails import thumbnails_of

    room = MOST_PICTURES - sum(map(len, pictures.values()))
    for clip, jpeg in thumbnails_of(folder, [clip for clip in ids if clip not in pictures]).items():
        text = base64.b64encode(jpeg).decode()
        room -= len(text)
        if room < 0:
            return
        pictures[clip] = text


def _about_pictures(count: int) -> str:
    """The sentence on the pictures of clips."""
    if count:
        return f"The pictures of {count:,} clips are shown when the pointer rests on them."
    return "The cache holds no pictures of these clips, which `fsmm extract` makes; the hover text has id and class."
