"""Which clips to label next: typical and different ones first, then those about which a classifier is in doubt.

Typical and different: the clips are divided into as many clusters as there will be labels, and of the largest clusters
without a label the clip with the nearest neighbours is taken. In doubt: of the clips whose probabilities are the least
certain, the typical ones of different clusters are taken. How far the modalities disagree is told, and does not rank:
clips that were chosen by it taught less (docs/results/classifier.md).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch.nn import functional as F

from .classifier import Classifier
from .examples import Examples
from .fitted import FittedHead

Strategy = Literal["auto", "typical", "doubt"]
ENOUGH = 5
"""The labels a class, on average, from which on doubt counts; below, typical clips are worth more."""
_NEIGHBOURS = 20
_SHORTLIST = 4
"""How many times as many doubtful clips as are asked for are divided into clusters."""


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A clip that is worth a label."""

    row: int
    """The clip's row among those that were offered."""
    typical: float
    """The mean cosine of the clip to its nearest neighbours."""
    doubt: float | None
    """How uncertain the classifier is, in 0..1; None without a classifier."""
    disagreement: float | None
    """How far the modalities' opinions lie apart, in 0..1; None without a classifier or with one modality."""
    probabilities: Mapping[str, float]
    """What the classifier takes the clip for; empty without one."""


def suggest(
    clips: Examples,
    count: int,
    *,
    labelled: Examples | None = None,
    classifier: Classifier | None = None,
    strategy: Strategy = "auto",
    seed: int = 0,
) -> list[Suggestion]:
    """The ``count`` clips to label next, the most urgent first; fewer where there are fewer clips.

    labelled: clips that have a label already. classifier: what they taught, for doubt; without it, or where it has
    fewer than ``ENOUGH`` examples a class on average, "auto" takes typical clips.
    """
    if labelled is None and classifier is not None:
        labelled = classifier.examples
    shared = [m for m in clips.modalities if labelled is None or m in labelled.modalities]
    pool = clips.select(shared)
    every = pool if labelled is None else pool.joined(labelled.select(shared))
    points = joint_points(every)
    n = len(clips)
    typical = typicality(points)
    doubt, apart, p = _opinions(classifier, clips)
    few = classifier is None or len(classifier.label) < ENOUGH * len(classifier.class_names)
    if strategy == "typical" or (strategy == "auto" and few) or doubt is None:
        rows = typical_rows(points, n, count, typical, seed=seed)
    else:
        rows = doubtful_rows(points[:n], doubt, typical[:n], count=count, seed=seed)
    names = [] if classifier is None else classifier.class_names
    return [
        Suggestion(
            row=row,
            typical=float(typical[row]),
            doubt=None if doubt is None else float(doubt[row]),
            disagreement=None if apart is None else float(apart[row]),
            probabilities={} if p is None else dict(zip(names, p[row].tolist())),
        )
        for row in rows
    ]


def joint_points(clips: Examples) -> np.ndarray:
    """The clips as points [n, D] of length one: the modalities side by side, each centred and of length one.

    A modality that a clip lacks is zero.
    """
    parts = []
    for stream in clips.streams.values():
        x = stream.pooled()
        if bool(stream.present.any()):
            x = x - x[stream.present].mean(0)
        parts.append(F.normalize(x, dim=-1) * stream.present[:, None])
    return np.asarray(F.normalize(torch.cat(parts, 1), dim=-1), np.float32)


def typicality(points: np.ndarray) -> np.ndarray:
    """The mean cosine [n] of each point to its nearest neighbours."""
    near = min(_NEIGHBOURS, len(points) - 1)
    if near < 1:
        return np.zeros(len(points))
    found = []
    for block in np.array_split(points, max(len(points) // 2048, 1)):
        similar = block @ points.T
        top = np.partition(similar, -near - 1, axis=1)[:, -near - 1 :]
        found.append((top.sum(1) - top.max(1)) / near)
    return np.concatenate(found)


def typical_rows(
    points: np.ndarray, offered: int, count: int, typical: np.ndarray, *, seed: int = 0
) -> list[int]:
    """The rows of typical and different points among the first ``offered``; the others have a label.

    Clusters without a label come first, and of these the larger ones.
    """
    labelled = len(points) - offered
    cluster = _clusters(points, min(count + labelled, len(points)), seed)
    free = np.arange(len(points)) < offered
    taken = np.bincount(cluster[~free], minlength=cluster.max() + 1)
    size = np.bincount(cluster)
    rows: list[int] = []
    while len(rows) < min(count, offered):
        order = np.lexsort((-size, taken))
        best = next(c for c in order if (free & (cluster == c)).any())
        held = np.flatnonzero(free & (cluster == best))
        row = int(held[typical[held].argmax()])
        rows.append(row)
        free[row] = False
        taken[best] += 1
    return rows


def doubtful_rows(
    points: np.ndarray, doubt: np.ndarray, typical: np.ndarray, *, count: int, seed: int = 0
) -> list[int]:
    """The rows of the most doubtful points that differ: a shortlist is divided into ``count`` clusters.

    Of each cluster the point with the largest product of doubt and typicality is taken.
    """
    order = np.argsort(-doubt, kind="stable")[: _SHORTLIST * count]
    cluster = _clusters(points[order], min(count, len(order)), seed)
    worth = doubt[order] * np.clip(typical[order], 1e-6, None)
    picked = [order[cluster == c][worth[cluster == c].argmax()] for c in np.unique(cluster)]
    rest = [row for row in order if row not in set(picked)]
    chosen = sorted(picked, key=lambda row: -doubt[row]) + rest
    return [int(row) for row in chosen[:count]]


def _clusters(points: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cluster of each point by k-means."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Points that are equal give fewer clusters, which is as well.
        found = KMeans(count, n_init=1, random_state=seed).fit_predict(points)
    return np.asarray(found, np.int64)


def _opinions(
    classifier: Classifier | None, clips: Examples
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """The doubt [n], the disagreement of modalities [n] and the probabilities [n, N] of a classifier."""
    if classifier is None:
        return None, None, None
    p = classifier.probabilities(clips)
    choice, fitted = classifier.fitted.choice, classifier.fitted
    doubt = _entropy(p) / np.log(p.shape[1])
    row = choice.row
    learned = row.learns(choice.settings) or row.words == "needed"  # A head that is made anew would lack it.
    if len(choice.modalities) < 2 or row.modalities != "one" or learned:
        return doubt, None, p
    each = []
    for name in choice.modalities:
        alone = FittedHead.untrained(
            replace(choice, modalities=(name,)),
            classifier.examples,
            fitted.label,
            fitted.class_names,
            means=fitted.means,
        )
        logits = alone.logits(clips).double().numpy() / classifier.calibration.temperature
        own = np.exp(logits - logits.max(1, keepdims=True))
        each.append(own / own.sum(1, keepdims=True))
    mean = np.mean(each, 0)
    apart = (_entropy(mean) - np.mean([_entropy(q) for q in each], 0)) / np.log(len(each))
    return doubt, np.clip(apart, 0, 1), p


def _entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(-(p * np.log(p + 1e-12)).sum(1))
