"""Calibration: probabilities that come true as often as they say, and sets that hold the true class as often as asked.

The temperature is the number by which logits are divided before the softmax. It is fitted on examples that were left
out of the supports, as are the scores of conformal sets (least ambiguous classifiers: a class belongs to the set of a
clip where one minus its probability is at most the quantile of the scores of clips whose class is known).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from ...errors import UsageError
from .leave_out import balanced_folds

BINS = 10
_FOLDS = 5
_COLDEST, _HOTTEST = -7.0, 7.0  # of the logarithm of the temperature
_SLACK = 1e-8  # what a probability may lack, by rounding, to belong to a set


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature, and what it is worth on examples that had no part in choosing it."""

    temperature: float
    """What logits are divided by."""
    error: float | None = None
    """The expected calibration error with a temperature that the other examples chose; None without examples."""
    error_before: float | None = None
    """The expected calibration error of the logits as they are."""
    scores: tuple[float, ...] = ()
    """One minus the probability of the true class of each example, in ascending order."""


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The softmax [n, N] of logits [n, N] over a temperature."""
    scaled = logits / temperature
    scaled = np.exp(scaled - scaled.max(1, keepdims=True))
    return scaled / scaled.sum(1, keepdims=True)


def calibrated(logits: np.ndarray, label: np.ndarray) -> Calibration:
    """The calibration by the logits [n, N] and labels [n] of examples that were left out.

    The errors are those of temperatures that four fifths of the examples chose, on the other fifth.
    """
    if not len(label):
        return Calibration(temperature=1.0)
    temperature = fitted_temperature(logits, label)
    fold = balanced_folds(label, min(_FOLDS, len(label)))
    crossed = np.empty_like(logits)
    for number in np.unique(fold):
        others = fold != number
        chosen = fitted_temperature(logits[others], label[others]) if others.any() else 1.0
        crossed[~others] = probabilities(logits[~others], chosen)
    scores = lac_scores(probabilities(logits, temperature), label)
    return Calibration(
        temperature=temperature,
        error=calibration_error(crossed, label),
        error_before=calibration_error(probabilities(logits, 1.0), label),
        scores=tuple(np.sort(scores).tolist()),
    )


def fitted_temperature(logits: np.ndarray, label: np.ndarray) -> float:
    """The temperature of the greatest likelihood, where each label counts as certain only to (n + 1) in (n + 2).

    Without that doubt, examples that are all decided rightly would ask for a temperature of zero.
    """
    n, classes = logits.shape
    sure = (n + 1) / (n + 2)
    target = np.full((n, classes), (1 - sure) / max(classes - 1, 1))
    target[np.arange(n), label] = sure

    def loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        log_p = scaled - top - np.log(np.exp(scaled - top).sum(1, keepdims=True))
        return float(-(target * log_p).sum(1).mean())

    found = minimize_scalar(loss, bounds=(_COLDEST, _HOTTEST), method="bounded")
    return math.exp(float(found.x))


def calibration_error(p: np.ndarray, label: np.ndarray, bins: int = BINS) -> float:
    """The expected calibration error: the mean gap between confidence and accuracy over equal bins of confidence.

    >>> calibration_error(np.array([[0.9, 0.1], [0.9, 0.1]]), np.array([0, 1]))
    0.4
    """
    confidence, right = p.max(1), p.argmax(1) == label
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - right[place == b].mean()) * (place == b).sum()
        for b in np.unique(place)
    ]
    return float(np.round(sum(gaps) / len(label), 12))


def lac_scores(p: np.ndarray, label: np.ndarray) -> np.ndarray:
    """One minus the probability of the true class, [n]."""
    return 1.0 - p[np.arange(len(label)), label]


def clips_needed(error: float) -> int:
    """How many calibration clips sets need that may miss the true class at the rate ``error``.

    >>> clips_needed(0.05), clips_needed(0.1), clips_needed(0.2)
    (19, 9, 4)
    """
    return math.ceil(round(1 / error, 9)) - 1


def lac_quantile(scores: np.ndarray, error: float) -> float:
    """The score up to which a class belongs to a set that may miss the true class at the rate ``error``.

    It is the quantile of level (n + 1)(1 - error) / n, the higher of two neighbours. Raises UsageError for an error
    that is not between 0 and 1, and where there are fewer scores than the error needs, with that number.
    """
    if not 0 < error < 1:
        raise UsageError(f"The error rate is {error:g}; it must lie between 0 and 1.")
    n, needed = len(scores), clips_needed(error)
    if n < needed:
        raise UsageError(
            f"Sets that hold the true class {100 * (1 - error):g} % of the time need {needed} calibration clips and "
            f"there are {n}; give more examples, or allow a larger error."
        )
    level = min((n + 1) * (1 - error) / n, 1.0)
    return float(np.quantile(scores, level, method="higher"))


def lac_sets(p: np.ndarray, quantile: float) -> np.ndarray:
    """Whether each class belongs to the set of each clip, bool [n, N]; a set may be empty."""
    return np.asarray(p >= 1.0 - quantile - _SLACK)
