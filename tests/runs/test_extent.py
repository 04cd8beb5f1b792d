"""``--episodes auto`` draws as many episodes as its precision needs, whatever the workers and the chunk."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs import evaluate as evaluating
from fsmm.runs import extent
from fsmm.runs.evaluate import evaluate
from fsmm.runs.extent import FEWEST, MOST, Auto
from fsmm.runs.job import Job, Place
from fsmm.runs.run import run
from fsmm.runs.spec import RunSpec
from fsmm.runs.statistics import Uncertainty
from fsmm.studies.compare import compare
from fsmm.studies.missing_sweep import missing_sweep

TASK = Protocol(n_query=4, k_shot=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("extent") / "cache", noise=3.0, clips=150)


@pytest.fixture(scope="module")
def bank(cache: Path) -> FeatureBank:
    return FeatureBank.load(cache, ["frame"]).pooled()


def test_steps_grow_and_end() -> None:
    steps = list(Auto().steps())
    assert steps[0] == FEWEST
    assert steps[-1] == MOST
    assert all(1 < later / earlier <= 1.5 for earlier, later in itertools.pairwise(steps))


def test_episodes_are_drawn_until_draws_are_a_fifth_of_clips_and_no_longer(bank: FeatureBank) -> None:
    head = build_head("protonet", inputs_of(bank))
    found = evaluate(head, bank, TASK, Auto())
    summary = found.summary()
    assert summary["ci95"] <= summary["ci95_clips"] / 5
    assert summary["episodes"] in list(Auto().steps())
    assert "a fifth of" in str(summary["why_so_many"])
    fixed = evaluate(head, bank, TASK, len(found.accuracy))
    assert np.array_equal(found.accuracy, fixed.accuracy)
    assert np.array_equal(found.confusion, fixed.confusion)
    assert fixed.summary()["ci95_clips"] == summary["ci95_clips"]
    assert fixed.summary()["why_so_many"] is None
    before = max(step for step in Auto().steps() if step < len(found.accuracy))
    fewer = evaluate(head, bank, TASK, before).summary()
    assert fewer["ci95"] > fewer["ci95_clips"] / 5


def test_the_number_depends_on_neither_workers_nor_chunk(
    bank: FeatureBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = build_head("protonet", inputs_of(bank))
    alone = evaluate(head, bank, TASK, Auto(1.0), workers=1)
    shared = evaluate(head, bank, TASK, Auto(1.0), workers=3)
    monkeypatch.setattr(evaluating, "chunk_size", lambda cost, device: 3)
    small = evaluate(head, bank, TASK, Auto(1.0), workers=2)
    for other in (shared, small):
        assert np.array_equal(alone.accuracy, other.accuracy)
        assert alone.why_so_many == other.why_so_many


def test_a_precision_in_points_is_kept(bank: FeatureBank) -> None:
    head = build_head("protonet", inputs_of(bank))
    found = evaluate(head, bank, TASK, Auto(0.8)).summary()
    assert 100 * found["ci95"] <= 0.8
    assert "0.8 points asked for" in found["why_so_many"]


def test_the_most_is_said_where_it_is_not_enough(bank: FeatureBank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extent, "MOST", 700)
    head = build_head("protonet", inputs_of(bank))
    found = evaluate(head, bank, TASK, Auto(0.01)).summary()
    assert found["episodes"] == 700
    assert "the most that auto draws" in found["why_so_many"]


def test_episodes_without_an_interval_over_clips_have_a_plain_precision(bank: FeatureBank) -> None:
    auto, draws = Auto(), Uncertainty(error=0.001, freedom=500)
    reason = Uncertainty(reason="episodes differ in size")
    assert "no interval over clips" in str(auto.verdict(draws, reason, 500))
    assert auto.verdict(replace(draws, error=0.01), reason, 500) is None
    assert auto.verdict(draws, Uncertainty(reason="too few", needs_more=True), 500) is None
    found = evaluate(
        build_head("protonet", inputs_of(bank)), bank, Protocol(n_way=(3, 5), n_query=8, k_shot=5), Auto()
    )
    assert 100 * found.summary()["ci95"] <= extent.PLAIN_PRECISION


@pytest.mark.parametrize("text", ["auto:", "auto:many", "auto:0", "auto:-1", "auto:nan", "automatic"])
def test_other_texts_are_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="--episodes"):
        Auto.parse(text)


def test_runs_that_drew_different_numbers_are_compared_on_the_episodes_that_they_share(
    cache: Path, tmp_path: Path
) -> None:
    def job(name: str, episodes: int | Auto) -> Job:
        spec = RunSpec(method="protonet", protocol=TASK, modalities=(name,))
        return Job(spec=spec, place=Place(cache=cache, dataset="toy", out=tmp_path / name), episodes=episodes)

    runs = [run(job("frame", Auto(2.0))), run(job("audio", 600))]
    lengths = [len(one.accuracy) for one in runs]
    found = compare([one.out for one in runs])
    assert found.episodes == min(lengths)
    assert max(lengths) > min(lengths)
    assert "differ in number" in found.notes[0]
    a, b = (one.accuracy[: found.episodes].astype(float) for one in runs)
    assert found.pairs[0].difference == pytest.approx((a - b).mean())


def test_each_rate_of_a_sweep_draws_as_many_as_it_needs(cache: Path, tmp_path: Path) -> None:
    spec = RunSpec(method="protonet-lf", protocol=TASK)
    job = Job(spec=spec, place=Place(cache=cache, dataset="toy", out=tmp_path), episodes=Auto(2.0))
    for one in missing_sweep(job, "audio@query"):
        assert 100 * one.metrics["ci95"] <= 2.0
        assert one.metrics["why_so_many"]
