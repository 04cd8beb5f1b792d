"""Episodes of base classes on which a method chooses among its settings before any test."""

from __future__ import annotations

import numpy as np

from ...cache.bank import FeatureBank
from ...episodes.protocol import Protocol

QUERIES = 15
SHOTS = (1, 5)
"""The supports of a class where those of the evaluated episodes vary."""
FEWEST_CLASSES = 4
SEED = 77_003  # The episodes of a choice share no draws with those of training, validation or the test.


def base_protocol(base: FeatureBank, way: int, shot: int | None) -> Protocol | None:
    """Episodes like the evaluated ones as far as base classes allow; None where they do not.

    way: the classes of an evaluated episode; shot: the supports of a class, None where they vary.
    """
    if base.multi:
        return None
    counts, most = base.counts(), shot or SHOTS[1]
    queries = max(min(QUERIES, int(np.quantile(counts, 0.25)) - most), 1)
    usable = int((counts >= most + queries).sum())
    if usable < FEWEST_CLASSES:
        return None
    return Protocol(
        n_way=min(way, usable),
        k_shot=shot or SHOTS,
        n_query=queries,
        split="base",
        seed=SEED,
        small_classes="exclude",
    )
