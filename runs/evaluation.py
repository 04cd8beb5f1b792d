"""The result of an evaluation on single-label episodes: accuracies, the confusion of classes, three intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from . import redraw
from .over_clips import clip_uncertainty
from .redraw import Source, outcomes
from .result import Result
from .statistics import Draws, Uncertainty, class_uncertainty, draw_uncertainty, interval_summary


@dataclass(kw_only=True)
class Evaluation(Result):
    """The result of an evaluation on E episodes over C classes."""

    accuracy: np.ndarray
    """float32 [E], the share of each episode's queries that are classified rightly, in the order of episode numbers."""
    confusion: np.ndarray
    """int64 [C, C], the number of queries by true class and predicted class."""
    class_names: list[str]
    """The names of the C classes."""
    seconds: float
    """The time of the evaluation in seconds."""
    chunk: int
    """The number of episodes that were scored at once."""
    excluded: list[str] = field(default_factory=list)
    """The names of the classes that were left out because they are too small."""
    first: int = 0
    """The number of the first episode."""
    right_bits: np.ndarray | None = None
    """uint8 [E, ceil(Q / 8)], a bit for each query that says whether it was classified rightly.

    None unless every episode draws the same number of clips of the same number of classes: the intervals over clips and
    classes were derived and verified for such episodes alone, and others do not get them.
    """
    source: Source | None = None
    """What the episodes are drawn from; None where ``right_bits`` is."""
    imbalance: str | None = None
    """The clause that says why episodes are not balanced; None where they are."""
    transductive: bool = True
    """Whether the queries of an episode were decided together, so that one of them may change the others."""
    effective: np.ndarray | None = None
    """int64 [E], the number of classes that each episode's queries come from; None where it was not counted."""
    why_so_many: str | None = None
    """The sentence that says why so many episodes were drawn; None where their number was given."""

    @property
    def mean(self) -> float:
        return float(self.accuracy.mean(dtype=np.float64))

    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored: fractions in 0..1, intervals as half widths at 95 %."""
        seen = self.confusion.sum(1)
        right = np.diag(self.confusion) / np.maximum(seen, 1)
        return {
            "accuracy": self.mean,
            **interval_summary(self.uncertainties),
            "per_class": {n: float(r) for n, r, s in zip(self.class_names, right, seen) if s},
            "episodes": len(self.accuracy),
            "effective_classes": self.effective_classes(),
            "why_so_many": self.why_so_many,
            "eval_seconds": self.seconds,
            "episodes_per_second": len(self.accuracy) / max(self.seconds, 1e-9),
            "chunk": self.chunk,
            "excluded_classes": self.excluded,
        }

    def effective_classes(self) -> dict[str, float] | None:
        """The mean, least and most classes that an episode's queries come from; None for inductive heads."""
        if not self.transductive or self.effective is None or not len(self.effective):
            return None
        return {
            "mean": float(self.effective.mean()),
            "least": int(self.effective.min()),
            "most": int(self.effective.max()),
        }

    @cached_property
    def draws(self) -> Draws | None:
        """The clips and classes of the episodes, or of the first MOST, drawn again; None where not balanced."""
        count = min(len(self.accuracy), redraw.MOST)
        return None if self.source is None else self.source.draws(self.first, count)

    @property
    def right(self) -> np.ndarray:
        """Whether each query was classified rightly, bool [E, Q]; [E, 0] where episodes are not balanced."""
        if self.source is None or self.right_bits is None:
            return np.empty((len(self.accuracy), 0), bool)
        return outcomes(self.right_bits, self.source.queries)

    @cached_property
    def uncertainties(self) -> dict[str, Uncertainty]:
        """The uncertainty of the accuracy over episode draws, over clips and over classes, by the summary's names."""
        values = self.accuracy.astype(np.float64)
        over_draws = draw_uncertainty(values)
        if self.draws is None:
            over_clips = over_classes = Uncertainty(reason=self.imbalance)
        else:
            values = values[: len(self.draws)]
            right = self.right[: len(self.draws)]
            over_clips = clip_uncertainty(right, self.draws, transductive=self.transductive)
            least = max(over_clips.variance - float(values.var()) / len(values), 0.0)
            over_classes = class_uncertainty(values, self.draws, least)
        return {"ci95": over_draws, "ci95_clips": over_clips, "ci95_classes": over_classes}

    def per_episode(self) -> np.ndarray:
        """The accuracy of each episode, float32 [E]."""
        return self.accuracy

    def arrays(self) -> dict[str, np.ndarray]:
        """The accuracies [E], the confusion [C, C], the names of its classes, and what draws the episodes again.

        The last is left out where episodes are not balanced: runs/redraw.py says what it is.
        """
        found = {
            "accuracy": self.accuracy,
            "confusion": self.confusion,
            "class_names": np.array(self.class_names),
        }
        if self.source is None or self.right_bits is None:
            return found
        return found | self.source.arrays(self.right_bits, transductive=self.transductive)
