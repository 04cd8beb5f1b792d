"""Pairs of heads with several training seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.runs.over_clips import clip_uncertainty
from fsmm.runs.redraw import Source
from fsmm.runs.statistics import Draws
from fsmm.studies.pairs import pair_of_outcomes
from fsmm.studies.seeded_pairs import mean_over_seeds, over_draws, pair_of_seeds


@pytest.fixture(scope="module")
def draws() -> Draws:
    label = np.repeat(np.arange(8), 30)
    clips = FeatureBank(
        dataset="toy",
        split="novel",
        label_set="event",
        class_split="default",
        streams={},
        tables={},
        label=torch.from_numpy(label),
        class_names=[f"c{i}" for i in range(8)],
        class_id=torch.arange(8),
        clip_row=np.arange(len(label)),
    )
    return Source.of(clips, Protocol(n_query=5)).draws(0, 200)


def outcomes(draws: Draws, share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(draws.query.shape) < share


def test_one_seed_each_is_the_pair_of_outcomes(draws: Draws) -> None:
    one, other = outcomes(draws, 0.7, 0), outcomes(draws, 0.6, 1)
    found = pair_of_seeds(("a", "b"), [one], [other], draws, transductive=False)
    assert found == pair_of_outcomes(("a", "b"), one, other, draws, transductive=False)


def test_the_variance_over_seeds_is_added_to_that_over_clips(draws: Draws) -> None:
    seeds = [outcomes(draws, share, number) for number, share in enumerate((0.55, 0.7, 0.85))]
    other = outcomes(draws, 0.6, 9)
    found = pair_of_seeds(("a", "b"), seeds, [other], draws, transductive=False)
    means = np.array([seed.mean() for seed in seeds])
    assert found.difference == pytest.approx(means.mean() - other.mean())
    clips = clip_uncertainty(np.mean(seeds, 0) - other, draws, transductive=False)
    parts = np.array([clips.variance, means.var(ddof=1) / 3])
    freedom = parts.sum() ** 2 / (parts**2 / [clips.freedom, 2]).sum()
    assert found.clips is not None
    assert found.clips.ci95 == pytest.approx(stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum()))


def test_seeds_that_agree_add_nothing_but_a_mean(draws: Draws) -> None:
    one, other = outcomes(draws, 0.7, 0), outcomes(draws, 0.6, 1)
    single = pair_of_seeds(("a", "b"), [one], [other], draws, transductive=False)
    double = pair_of_seeds(("a", "b"), [one, one], [other], draws, transductive=False)
    assert double.difference == pytest.approx(single.difference)
    assert single.clips is not None
    assert double.clips is not None
    assert double.clips.ci95 == pytest.approx(single.clips.ci95)


def test_the_mean_over_seeds_has_an_interval_that_counts_them(draws: Draws) -> None:
    seeds = [outcomes(draws, share, number) for number, share in enumerate((0.55, 0.7, 0.85))]
    found = mean_over_seeds(seeds, draws, transductive=False)
    means = np.array([seed.mean() for seed in seeds])
    clips = clip_uncertainty(np.mean(seeds, 0), draws, transductive=False)
    assert found.mean == pytest.approx(means.mean())
    assert found.clips.variance == pytest.approx(clips.variance + means.var(ddof=1) / 3)
    assert found.clips.freedom < clips.freedom
    assert found.clips.half_width() > 2 * clips.half_width()  # These seeds differ more than clips do.


def test_the_variance_over_seeds_is_added_to_that_over_draws(draws: Draws) -> None:
    seeds = [outcomes(draws, share, number).mean(1) for number, share in enumerate((0.55, 0.7, 0.85))]
    other = outcomes(draws, 0.6, 9).mean(1)
    found = over_draws(seeds, [other])
    values = np.mean(seeds, 0) - other
    alone = values.std(ddof=1) / np.sqrt(len(values))
    over_seeds = np.std([each.mean() for each in seeds], ddof=1) / np.sqrt(3)
    error = np.hypot(alone, over_seeds)
    freedom = error**4 / (alone**4 / (len(values) - 1) + over_seeds**4 / 2)
    assert found.ci95 == pytest.approx(stats.t.ppf(0.975, freedom) * error)
    single = over_draws(seeds[:1], [other])
    expected = seeds[0] - other
    assert single.ci95 == pytest.approx(
        stats.t.ppf(0.975, len(expected) - 1) * expected.std(ddof=1) / np.sqrt(len(expected))
    )
