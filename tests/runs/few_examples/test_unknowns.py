"""Clips of no class: the area under the curve, and thresholds that let through what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from classifier_support import gaussian
from sklearn.metrics import roc_auc_score
from tests_support import random_bank

from fsmm.runs.few_examples.examples import Examples
from fsmm.runs.few_examples.unknowns import (
    Nearness,
    Threshold,
    area_under_curve,
    threshold_by_base,
    threshold_by_examples,
)


def test_the_area_is_that_of_scikit_learn() -> None:
    chance = np.random.default_rng(0)
    known, unknown = chance.integers(0, 6, 40) / 6, chance.integers(0, 5, 30) / 6
    truth = np.repeat([1, 0], [40, 30])
    assert area_under_curve(known, unknown) == pytest.approx(
        roc_auc_score(truth, np.concatenate([known, unknown]))
    )


def test_nearness_is_the_mean_cosine_over_the_modalities_that_a_clip_has() -> None:
    features = {"a": np.array([[1.0, 0.0], [0.0, 1.0]]), "b": np.array([[1.0, 0.0], [0.0, 1.0]])}
    near = Nearness(Examples.of(features), torch.tensor([0, 1]), 2)
    clips = Examples.of(
        {
            "a": np.array([[1.0, 1.0], [1.0, 0.0], [np.nan] * 2]),
            "b": np.array([[1.0, 0.0], [np.nan] * 2, [np.nan] * 2]),
        }
    )
    assert near.of(clips) == pytest.approx([(np.sqrt(0.5) + 1) / 2, 1.0, -np.inf])


def test_a_threshold_lets_the_stated_share_of_known_clips_be_unknown() -> None:
    known = tuple(np.linspace(0, 1, 99))
    found = Threshold(known=known, unknown=(-1.0, 0.5))
    assert (np.array(known) < found.at(0.1)).sum() == 9
    assert found.stopped(0.1) == 0.5
    assert Threshold(known=known[:5]).at(0.1) == -np.inf, "five clips tell nothing of a tenth"


def test_examples_tell_a_threshold_and_base_classes_tell_what_it_stops() -> None:
    features, label = gaussian(5)
    examples = Examples.of(features)
    assert len(threshold_by_examples(Nearness(examples, torch.from_numpy(label), 3)).known) == 15
    base = random_bank({"frame": (2, 16)}, classes=8, clips=12)
    found = threshold_by_base(base, ways=3, shots=[5, 5, 5])
    area = found.area()
    assert area is not None
    assert 0.8 < area <= 1.0
    assert threshold_by_base(base, ways=3, shots=[12]).known == (), "no class has a clip left to ask about"
