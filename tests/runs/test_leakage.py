"""What leakage is worth: a planted group effect is found, none is none, and the jackknife is a slow loop's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import bank_of, synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.head import Head
from fsmm.runs.job import Job, Place
from fsmm.runs.leakage import Outcomes, jackknife, leakage, left_out
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec, WhenMissing

TASK = Protocol(n_way=4, k_shot=1, n_query=4, shared_group=False)


def grouped(effect: float, groups: int = 8, classes: int = 6, clips: int = 3) -> FeatureBank:
    """Clips of weak classes; every group has an offset of its own in each class, of this size."""
    chance = torch.Generator().manual_seed(1)
    label = torch.arange(classes).repeat_interleave(groups * clips)
    of_group = torch.arange(groups).repeat_interleave(clips).repeat(classes)
    centre = torch.randn(classes, 16, generator=chance)[label]
    offset = torch.randn(classes * groups, 16, generator=chance)[label * groups + of_group]
    bank = bank_of(centre + effect * offset + torch.randn(len(label), 16, generator=chance), label)
    bank.groups = np.array([f"c{c}-s{g}" for c, g in zip(label.tolist(), of_group.tolist())], object)
    return bank


def protonet(bank: FeatureBank) -> Head:
    return build_head("protonet", inputs_of(bank))


def test_a_planted_effect_is_seen_and_its_absence_too() -> None:
    with_effect, without = (leakage(protonet(b), b, TASK, 1500) for b in (grouped(2.0), grouped(0.0)))
    assert with_effect.ci95 is not None
    assert without.ci95 is not None
    assert with_effect.difference > with_effect.ci95 > 0
    assert with_effect.difference > 0.05
    assert abs(without.difference) < without.ci95
    assert with_effect.difference == pytest.approx(with_effect.shared - with_effect.apart)
    assert (with_effect.groups, with_effect.episodes) == (48, 1500)


def test_leaving_out_a_group_is_what_a_slow_loop_does() -> None:
    draws = np.random.default_rng(0)
    found = Outcomes(
        support=draws.integers(0, 7, (40, 6)),
        query=draws.integers(0, 7, (40, 9)),
        query_class=draws.integers(-1, 3, (40, 9)),
        right=draws.random((40, 9)) < 0.6,
    )
    whole, without = left_out(found, 7, 3)
    real = found.query_class >= 0
    share = [float((found.query_class == c).sum()) / real.sum() for c in range(3)]
    for group in range(7):
        kept = real & ~(found.support == group).any(1)[:, None] & (found.query != group)
        by_class = [found.right[kept & (found.query_class == c)].mean() for c in range(3)]
        assert without[group] == pytest.approx(float(np.dot(share, by_class)))
    assert whole == pytest.approx(found.right[real].mean())


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = np.random.default_rng(0).normal(size=30)
    without = (x.sum() - x) / 29
    assert jackknife(without).error == pytest.approx(x.std(ddof=1) / np.sqrt(30))


def test_without_a_value_there_is_a_reason() -> None:
    assert "every episode" in str(jackknife(np.array([0.1, np.nan])).reason)
    assert "fewer than two" in str(jackknife(np.array([0.1])).reason)


@pytest.mark.parametrize("rule", ["drop", "match", "linear"])
def test_a_run_says_what_leakage_is_worth_to_the_very_head_that_it_measures(
    tmp_path: Path, rule: WhenMissing
) -> None:
    """Its own tasks keep groups apart, so that the accuracy of that protocol is the run's."""
    cache = synthetic_cache(tmp_path / "cache", noise=2.0, common=1.0, groups=6)
    task = Protocol(k_shot=2, n_query=4, shared_group=False, missing=(Missing("audio", 1.0, "query"),))
    spec = RunSpec(method="protonet", fusion="ec", protocol=task, when_missing=rule)
    place = Place(cache=cache, dataset="toy", out=tmp_path / "run")
    made = run(Job(spec=spec, place=place, episodes=200))
    assert made.metrics["leakage"]["apart"] == pytest.approx(made.mean, abs=1e-6)
