"""What a run says of every other way with what clips lack, by the tested episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tests_support import random_bank, synthetic_cache

import fsmm
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs import filling_choice, filling_promise
from fsmm.runs.evaluation import Evaluation
from fsmm.runs.filling import Rule
from fsmm.runs.filling_choice import Beside, FillingChoice
from fsmm.runs.filling_promise import gain_of, promise_text
from fsmm.runs.measure import measure
from fsmm.runs.run import Run
from fsmm.studies.compare import compare

TASK = Protocol(n_way=4, k_shot=2, n_query=6, missing=(Missing("audio", 0.6),))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    streams = {"frame/net": (1, 8), "audio/net": (1, 6)}
    return synthetic_cache(tmp_path_factory.mktemp("cache"), streams=streams, clips=20, noise=1.5)


@pytest.fixture(scope="module")
def far_from_zero(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose features all lie in one place away from zero, so that zeros are like no clip."""
    streams = {"frame/net": (1, 8), "audio/net": (1, 6)}
    return synthetic_cache(tmp_path_factory.mktemp("far"), streams=streams, clips=20, common=3.0)


def evaluated(cache: Path, out: Path, **more: Any) -> Run:
    given: dict[str, Any] = {"protocol": TASK, "episodes": 60, **more}
    return fsmm.episode_eval("protonet-ec", "toy", cache, out=out, **given)


def test_every_way_stands_beside_the_default_as_its_own_run_has_it(cache: Path, tmp_path: Path) -> None:
    ways = evaluated(cache, tmp_path / "auto").metrics["when_missing_choice"]["beside"]
    assert [way["way"] for way in ways] == list(get_args(Rule))
    for way in ways:
        alone = evaluated(cache, tmp_path / way["way"], when_missing=way["way"])
        assert alone.metrics["when_missing_choice"] is None
        assert way["accuracy"] == pytest.approx(alone.metrics["accuracy"], abs=1e-6)
        (pair,) = compare([tmp_path / way["way"], tmp_path / "auto"]).pairs
        assert way["gain"] == pytest.approx(pair.difference, abs=1e-6)
        if way["gain"] and pair.clips is not None and pair.clips.ci95 is not None:
            assert way["ci95"] == pytest.approx(pair.clips.ci95, rel=1e-3)


def test_a_bad_choice_is_told_and_changes_nothing(
    far_from_zero: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choice of zeros that count as a clip, made by hand, is behind what clips know, and the run says so."""
    cache, task = far_from_zero, replace(TASK, missing=(Missing("frame", 0.6, "support"),))
    monkeypatch.setattr(
        filling_choice,
        "choose",
        lambda *_, **__: FillingChoice(support="zero", query="zero", scores={}, parts=["val"]),
    )
    found = evaluated(cache, tmp_path / "auto", protocol=task, episodes=200)
    alone = evaluated(cache, tmp_path / "zero", protocol=task, episodes=200, when_missing="zero")
    assert np.array_equal(found.accuracy, alone.accuracy)
    ways = {way["way"]: way for way in found.metrics["when_missing_choice"]["beside"]}
    assert ways["zero"]["gain"] == ways["zero"]["ci95"] == 0
    best = max(ways.values(), key=lambda way: way["gain"])
    assert best["gain"] > best["ci95"] > 0
    (note,) = (note for note in found.metrics["notes"] if "with what clips lack are better" in note)
    assert f"{best['way']} by {100 * best['gain']:.1f} ± {100 * best['ci95']:.1f} points" in note


def test_of_many_episodes_the_first_are_answered_in_every_way(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling_promise, "EPISODES", 20)
    ways = evaluated(cache, tmp_path / "auto").metrics["when_missing_choice"]["beside"]
    few = evaluated(cache, tmp_path / "few", episodes=20).metrics["when_missing_choice"]["beside"]
    assert ways == few


def test_of_one_episode_nothing_is_said_to_be_ahead(cache: Path, tmp_path: Path) -> None:
    metrics = evaluated(cache, tmp_path / "one", episodes=1).metrics
    ways = metrics["when_missing_choice"]["beside"]
    assert {way["ci95"] for way in ways if way["gain"]} <= {None}
    assert not any("better than the one that was chosen" in note for note in metrics["notes"])


def test_only_what_is_ahead_beyond_the_interval_is_told() -> None:
    ways = [
        Beside(way="mean", accuracy=0.8, gain=0.02, ci95=0.03),
        Beside(way="zero", accuracy=0.7, gain=-0.1, ci95=0.01),
        Beside(way="linear", accuracy=0.8, gain=0.02, ci95=0.01),
        Beside(way="drop", accuracy=0.8, gain=0.03, ci95=0.01),
    ]
    ways.append(Beside(way="neighbours", accuracy=1.0, gain=0.9, ci95=None))
    told = promise_text(ways, "match")
    assert "drop by 3.0 ± 1.0 points, linear by 2.0 ± 1.0 points;" in told
    assert "mean" not in told
    assert "neighbours" not in told, "of a single episode nothing is sure"
    assert not promise_text(ways[:2], "match")


def scored(found: Evaluation, outcome: np.ndarray) -> Evaluation:
    """The result with these outcomes of its queries, bool [E, Q]."""
    bits = np.packbits(outcome, axis=1)
    return replace(found, accuracy=outcome.mean(1).astype(np.float32), right_bits=bits)


@pytest.fixture(scope="module")
def result() -> Evaluation:
    bank = random_bank({"frame": (1, 6), "audio": (1, 4)}, classes=6, clips=12, seed=1)
    head = build_head("protonet-ec", inputs_of(bank))
    found = measure(head, bank, Protocol(n_way=3, k_shot=2, n_query=4), 200)
    assert isinstance(found, Evaluation)
    return found


def test_a_gain_of_a_few_clips_is_within_the_interval_over_clips(result: Evaluation) -> None:
    """Two clips of 72 are classified rightly by one way alone: other clips might be by the other."""
    assert result.draws is not None
    own = np.isin(result.draws.query, [0, 12])
    chosen, better = (scored(result, result.right & ~own | (own & gained)) for gained in (False, True))
    gain = better.accuracy.astype(float) - chosen.accuracy
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain)), "it is certain over draws"
    value, width = gain_of(better, chosen)
    assert value == pytest.approx(gain.mean())
    assert value < width


def test_without_an_interval_over_clips_that_over_draws_counts(result: Evaluation) -> None:
    chance = np.random.default_rng(0)
    some, more = (chance.random(result.right.shape) < share for share in (0.6, 0.2))
    chosen, better = scored(result, some), scored(result, some | more)
    over_clips = gain_of(better, chosen)
    over_draws = gain_of(*(replace(each, source=None, right_bits=None) for each in (better, chosen)))
    difference = better.accuracy.astype(float) - chosen.accuracy
    assert over_draws[0] == pytest.approx(over_clips[0]) == pytest.approx(difference.mean())
    assert over_draws[1] == pytest.approx(1.972 * difference.std(ddof=1) / np.sqrt(200), rel=1e-3)
    assert 0 < over_clips[1] < over_clips[0]
