"""A sample of the clips of each class, for statistics that need no more than some of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How many clips a sample has."""

    clips: int
    """The most clips of all classes together; each class has an equal share of them."""
    least: int
    """The clips that a class keeps where its share is smaller."""

    def rows(self, label: np.ndarray) -> np.ndarray:
        """The rows that are drawn, with a fixed seed, of clips with the labels int [n]; int64 [m], ascending.

        >>> Sample(clips=4, least=1).rows(np.array([0, 1, 0, 1]))
        array([0, 1, 2, 3])
        >>> np.bincount(np.repeat([0, 1], 50)[Sample(clips=14, least=1).rows(np.repeat([0, 1], 50))])
        array([7, 7])
        """
        most = max(self.clips // max(len(np.unique(label)), 1), self.least)
        order = np.random.Generator(np.random.Philox(SEED)).permutation(len(label))
        by_class = order[np.argsort(label[order], kind="stable")]
        first = np.searchsorted(label[by_class], label[by_class])
        return np.sort(by_class[np.arange(len(label)) - first < most])
