"""Small sets of examples with known truth, shared by the tests of the user's classifier."""

from __future__ import annotations

import numpy as np

NAMES = ("jump", "run", "swim")


def gaussian(
    shots: int, *, classes: int = 3, gap: float = 3.0, steps: int | None = None, seed: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features of two modalities, of 8 and 6 numbers, and labels: classes are Gaussian with means ``gap`` apart.

    steps: the steps of a clip; None for features [n, D].
    """
    chance = np.random.default_rng(seed)
    means = {name: np.eye(classes, width) * gap for name, width in (("frame", 8), ("audio", 6))}
    label = np.repeat(np.arange(classes), shots)
    shape = () if steps is None else (steps,)
    features = {
        name: (mean[label] if steps is None else mean[label][:, None])
        + chance.normal(size=(len(label), *shape, mean.shape[1]))
        for name, mean in means.items()
    }
    return features, label
