"""Looking clips up: by the words of a class, and by what another of their modalities says.

Every clip of a split is in the gallery. Words look for the clips of their class. A clip seen by one modality alone
looks for itself in the gallery of another modality alone (R@1 and R@10), and for the clips of its class (mAP).
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..cache.bank import FeatureBank
from ..errors import UsageError
from ..heads.head import HasSpace, Head
from .result import Result

RANKS = (1, 10)
AT_ONCE = 256  # Clips that are placed, and queries that are ranked, at once.


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The outcome of Q look-ups in one gallery."""

    first: np.ndarray
    """int64 [Q], the rank from 1 on of the first clip that counts as found."""
    precision: np.ndarray
    """float64 [Q], the average precision over the clips of the query's class."""

    def summary(self) -> dict[str, float]:
        """R@1 and R@10 (the share of queries whose find is among the first 1 or 10), mAP, and the number of queries."""
        recall = {f"R@{rank}": float((self.first <= rank).mean()) for rank in RANKS}
        return {**recall, "mAP": float(self.precision.mean()), "queries": len(self.first)}


@dataclass(kw_only=True)
class Retrieval(Result):
    """The result of looking up the clips of a split."""

    directions: dict[str, Direction]
    """The outcomes by what looks for what, such as ``words -> clips`` and ``audio -> frame``."""
    class_names: list[str]
    """The names of the classes."""
    clips: int
    """The number of clips of the gallery."""
    seconds: float
    """The time of all look-ups in seconds."""

    @property
    def mean(self) -> float:
        """The mean average precision, as the mean over the directions."""
        return float(np.mean([found.precision.mean() for found in self.directions.values()]))

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored; the split counts as one episode and has no interval."""
        words = self.directions.get("words -> clips")
        return {
            "accuracy": self.mean,
            "measure": "mean average precision",
            "retrieval": {name: found.summary() for name, found in self.directions.items()},
            "ci95": None,
            "ci95_clips": None,
            "ci95_classes": None,
            "per_class": {} if words is None else dict(zip(self.class_names, words.precision.tolist())),
            "episodes": 1,
            "eval_seconds": self.seconds,
            "episodes_per_second": 1 / max(self.seconds, 1e-9),
            "excluded_classes": [],
        }

    def per_episode(self) -> np.ndarray:
        """An empty array, since a whole split is looked up at once, without episodes."""
        return np.empty(0, np.float32)

    def arrays(self) -> dict[str, np.ndarray]:
        """The one figure of the split [1], and the average precision and first rank of every query by direction."""
        found: dict[str, np.ndarray] = {"accuracy": np.array([self.mean], np.float32)}
        for name, direction in self.directions.items():
            found |= {f"{name}: precision": direction.precision, f"{name}: first": direction.first}
        return found


@torch.no_grad()
def retrieve(head: Head[Any], bank: FeatureBank) -> Retrieval:
    """Look up the clips of a bank by the class words, if there are any, and by each modality in each other one.

    Raises UsageError for a head without a common space, and where neither words nor two modalities are there.
    """
    if not isinstance(head, HasSpace):
        raise UsageError("Retrieval needs a head that places clips in one space; use --method common-space.")
    if bank.words is None and len(bank.tables) < 2:
        raise UsageError("Retrieval needs class words, or two modalities; extract or name them.")
    head.eval()
    started = time.perf_counter()
    points = {m: _placed(head, bank, (m,)) for m in bank.tables}
    whole = points[next(iter(points))] if len(points) == 1 else _placed(head, bank, tuple(bank.tables))
    directions = {}
    if bank.words is not None:
        classes = torch.arange(len(bank.class_names), device=bank.device)
        directions["words -> clips"] = _by_class(head.place_words(bank.words), classes, whole, bank)
    for one, other in itertools.permutations(points, 2):
        directions[f"{one} -> {other}"] = _by_clip(points[one], points[other], bank)
    return Retrieval(
        directions=directions,
        class_names=bank.class_names,
        clips=len(bank),
        seconds=time.perf_counter() - started,
    )


def _placed(head: HasSpace, bank: FeatureBank, modalities: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Where the clips lie by these modalities, [n, D], and which have any of them, bool [n]."""
    rows = torch.arange(len(bank), device=bank.device).split(AT_ONCE)
    parts = [head.place({m: bank.tables[m].gather(part) for m in modalities}) for part in rows]
    return torch.cat([point for point, _ in parts]), torch.cat([present for _, present in parts])


def _by_class(query: Tensor, classes: Tensor, gallery: tuple[Tensor, Tensor], bank: FeatureBank) -> Direction:
    """Each class [C, D] looks for its clips in a gallery; a class without a clip in it is left out."""
    point, present = gallery
    label = bank.label[present]
    relevant = label.T.bool() if bank.multi else classes[:, None] == label[None]
    asked = relevant.any(1)
    rank, precision = _ranked(query[asked] @ point[present].T, relevant[asked])
    return Direction(first=rank, precision=precision)


def _by_clip(query: tuple[Tensor, Tensor], gallery: tuple[Tensor, Tensor], bank: FeatureBank) -> Direction:
    """Each clip that has both modalities looks for itself and for its class among the clips that have both."""
    both = (query[1] & gallery[1]).nonzero()[:, 0]
    asked, held, label = query[0][both], gallery[0][both], bank.label[both]
    first, precision = [], []
    for part in torch.arange(len(both), device=both.device).split(AT_ONCE):
        scores = asked[part] @ held.T
        same = (
            (label[part].float() @ label.float().T) > 0 if bank.multi else label[part][:, None] == label[None]
        )
        own = torch.zeros_like(same).scatter(1, part[:, None], True)
        first.append(_ranked(scores, own)[0])
        precision.append(_ranked(scores, same)[1])
    return Direction(first=np.concatenate(first), precision=np.concatenate(precision))


def _ranked(scores: Tensor, relevant: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The rank from 1 on of the first relevant clip and the average precision of each query [Q], by scores [Q, G].

    Of clips with equal scores the one that is first in the split is first.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    hit = relevant.gather(1, order).double()
    rank = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    precision = (hit * hit.cumsum(1) / rank).sum(1) / hit.sum(1)
    return (hit.argmax(1) + 1).cpu().numpy(), precision.cpu().numpy()
