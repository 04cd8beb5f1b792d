"""The choice of a method: it finds what is better, admits what it cannot tell, and its figure is not flattered."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from fsmm.runs.few_examples.auto_method import Trial, confused, free_candidates, paired, select, wilson
from fsmm.runs.few_examples.fitted import HeadChoice


def trial(name: str, right: np.ndarray, label: np.ndarray, margin: float = 2.0) -> Trial:
    """A candidate that decides these examples rightly and the others for the next class."""
    decided = np.where(right, label, (label + 1) % 3)
    return Trial(
        choice=HeadChoice(method=name, modalities=("frame",)), logits=margin * np.eye(3)[decided], label=label
    )


def test_a_clearly_better_candidate_is_picked_with_certainty() -> None:
    label = np.arange(30) % 3
    found = select([trial("protonet", label == 0, label), trial("ridge", np.ones(30, bool), label)])
    assert (found.picked, found.rival) == (1, 0)
    assert found.gain == pytest.approx(2 / 3)
    assert found.is_sure


def test_the_first_stays_where_another_is_better_within_one_standard_error() -> None:
    label = np.arange(12) % 3
    found = select([trial("protonet", np.arange(12) != 0, label), trial("ridge", np.arange(12) != 1, label)])
    assert found.picked == 0
    assert not found.is_sure


def test_the_accuracy_of_the_luckiest_of_many_is_corrected() -> None:
    """Forty candidates that guess: the best looks far better than chance, and what is told does not."""
    chance, label = np.random.default_rng(0), np.arange(18) % 3
    told, best = [], []
    for _ in range(20):
        trials = [trial("protonet", chance.random(18) < 1 / 3, label) for _ in range(40)]
        found = select(trials)
        told.append(found.accuracy)
        best.append(trials[found.picked].accuracy)
    assert np.mean(best) > 0.5
    assert abs(np.mean(told) - 1 / 3) < 0.1


def test_wilson_is_scipys() -> None:
    found = binomtest(7, 12).proportion_ci(method="wilson")
    assert wilson(7 / 12, 12) == pytest.approx((found.low, found.high), abs=1e-6)


def test_paired_intervals_hold_the_truth() -> None:
    """Two candidates right on 80 and 70 % of examples, half of the time together; also where they never differ."""
    chance, held = np.random.default_rng(0), []
    for _ in range(400):
        u, v = chance.random(20), chance.random(20)
        one, other = u < 0.8, np.where(chance.random(20) < 0.5, u, v) < 0.7
        gain, half = paired(one, other)
        held.append(abs(gain - 0.1) <= half)
    assert 0.9 < np.mean(held) <= 1
    same = np.ones(20, bool)
    assert paired(same, same)[1] > 0.05


def test_the_most_frequent_confusions_come_first() -> None:
    label = np.array([0, 0, 0, 1, 1, 2])
    found = confused(trial("protonet", np.array([0, 0, 1, 0, 1, 1], bool), label), ["a", "b", "c"])
    assert found == [("a", "b", 2, 3), ("b", "c", 1, 2)]


def test_candidates_join_modalities_and_take_each_alone() -> None:
    found = {str(choice) for choice in free_candidates(["frame", "audio"], ordered=True)}
    assert {"protonet-lf on frame and audio", "ridge on audio", "otam-lf on frame and audio"} <= found
    assert not any("otam" in str(choice) for choice in free_candidates(["frame"], ordered=False))
