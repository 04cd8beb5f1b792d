"""The interface that every kind of result has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np


class Result(ABC):
    """The result of the evaluation of a head on episodes, on multi-label episodes, or on a whole split."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """The figures that are printed and stored: fractions in 0..1, intervals as half widths at 95 %.

        Every kind has ``accuracy``, ``ci95``, ``ci95_clips``, ``ci95_classes``, ``per_class``, ``episodes``,
        ``eval_seconds``, ``episodes_per_second`` and ``excluded_classes``; an interval without a value is None, and
        ``no_interval`` may hold the sentence that says why, by its name; ``one_sided`` may list those that are bounds.
        A kind whose ``accuracy`` is another measure names it in ``measure``.
        """

    @abstractmethod
    def per_episode(self) -> np.ndarray:
        """The figure of each episode, float32 [E], in the order of episode numbers; empty without episodes."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that are stored in episodes.npz.

        ``accuracy``, float32 [E], is the figure by which runs are compared; its mean is the summary's ``accuracy``.
        """
