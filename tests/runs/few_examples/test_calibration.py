"""Calibration and sets: temperatures are found again, and sets hold the true class as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from fsmm.errors import UsageError
from fsmm.runs.few_examples.calibration import (
    calibrated,
    calibration_error,
    clips_needed,
    fitted_temperature,
    lac_quantile,
    lac_scores,
    lac_sets,
    probabilities,
)


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [n, 4] whose labels come true by their softmax at this temperature."""
    chance = np.random.default_rng(seed)
    logits = 3 * chance.normal(size=(n, 4))
    p = probabilities(logits, temperature)
    return logits, np.array([chance.choice(4, p=row) for row in p])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, label = drawn(4000, temperature)
    assert fitted_temperature(logits, label) == pytest.approx(temperature, rel=0.1)


def test_examples_that_are_all_right_do_not_make_it_certain() -> None:
    logits = np.eye(3)[np.repeat(np.arange(3), 4)]
    label = logits.argmax(1)
    p = probabilities(logits, fitted_temperature(logits, label))
    assert p.max(1) == pytest.approx(13 / 14, abs=1e-3)  # (n + 1) in (n + 2), of twelve examples


def test_calibration_lowers_the_error_on_clips_that_had_no_part_in_it() -> None:
    logits, label = drawn(400, 5.0)
    fresh, truth = drawn(4000, 5.0, seed=1)
    found = calibrated(logits, label)
    assert calibration_error(probabilities(fresh, found.temperature), truth) < 0.03
    assert found.error is not None
    assert found.error_before is not None
    assert found.error < found.error_before / 2


@pytest.mark.parametrize("error", [0.2, 0.1, 0.05])
def test_sets_hold_the_true_class_as_often_as_asked(error: float) -> None:
    """Split conformal: over draws of n calibration clips coverage is between 1 - error and 1 - error + 1 / (n + 1)."""
    held = []
    for seed in range(300):
        logits, label = drawn(60, 1.0, seed=seed)
        p = probabilities(logits, 1.0)
        sets = lac_sets(p[30:], lac_quantile(lac_scores(p[:30], label[:30]), error))
        held.append(sets[np.arange(30), label[30:]].mean())
    spread = 3 * np.std(held) / np.sqrt(len(held))
    assert 1 - error - spread <= np.mean(held) <= 1 - error + 1 / 31 + spread


@pytest.mark.parametrize(("error", "needed"), [(0.05, 19), (0.1, 9), (0.2, 4), (0.01, 99)])
def test_fewer_clips_than_a_level_needs_are_refused_with_the_number(error: float, needed: int) -> None:
    assert clips_needed(error) == needed
    scores = np.linspace(0, 1, needed)
    assert lac_quantile(scores, error) == 1.0
    with pytest.raises(UsageError, match=f"need {needed} calibration clips and there are {needed - 1}"):
        lac_quantile(scores[1:], error)


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, 2.0])
def test_an_error_rate_lies_between_zero_and_one(error: float) -> None:
    with pytest.raises(UsageError, match="must lie between 0 and 1"):
        lac_quantile(np.zeros(100), error)
