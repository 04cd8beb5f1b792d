"""A run's folder draws the run's episodes again, without the cache."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.errors import FsmmError
from fsmm.runs import redraw
from fsmm.runs.evaluation import Evaluation
from fsmm.runs.redraw import DrawnOtherwise, Source, can_redraw, outcomes
from fsmm.runs.run import Run, episode_eval
from fsmm.runs.store import load_run


def a_run(tmp_path: Path, protocol: Protocol) -> tuple[Run, FeatureBank]:
    """A run of ProtoNet on 50 episodes, and the bank that it drew them from; the cache is gone afterwards."""
    cache = synthetic_cache(tmp_path / "cache", absent=0.1, noise=1.5, unlabelled=9)
    found = episode_eval(
        "protonet", "toy", cache, protocol=protocol, episodes=50, modalities=["frame"], out=tmp_path / "run"
    )
    bank = FeatureBank.load(cache, split="novel")
    shutil.rmtree(cache)
    return found, bank


@pytest.mark.parametrize(
    "protocol",
    [Protocol(n_query=4, seed=3), Protocol(n_query=5, k_shot=2, unlabelled=3, small_classes="exclude")],
)
def test_the_same_episodes_are_drawn_without_the_cache(tmp_path: Path, protocol: Protocol) -> None:
    found, bank = a_run(tmp_path, protocol)
    config, metrics, arrays = load_run(found.out)
    assert can_redraw(arrays)
    source = Source.of_run(config, arrays)
    draws = source.draws(0, 50)
    (index,) = Sampler(bank, protocol, unlabelled=9).batches(0, 50, 50)
    assert np.array_equal(draws.support, index.support.numpy())
    assert np.array_equal(draws.query, index.query.numpy())
    assert np.array_equal(draws.classes, index.classes.numpy())
    assert np.array_equal(draws.way, index.query_label.numpy())
    assert np.array_equal(draws.clip_class[draws.query], np.take_along_axis(draws.classes, draws.way, 1))
    assert source.queries == index.query.shape[1]
    right = outcomes(arrays["right_bits"], source.queries)
    assert right.mean(1) == pytest.approx(found.accuracy)
    assert isinstance(found.result, Evaluation)
    assert np.array_equal(right, found.result.right)
    assert (found.out / "episodes.npz").stat().st_size < 8000 + 20 * len(bank)
    assert metrics["no_interval"] == {}


def test_another_version_is_not_read_and_changed_clips_are_refused(tmp_path: Path) -> None:
    found, _ = a_run(tmp_path, Protocol(n_query=4))
    config, _, arrays = load_run(found.out)
    assert not can_redraw({**arrays, "draws_version": np.array(2)})
    other = arrays["clip_class"].copy()
    other[[0, -1]] = other[[-1, 0]]
    with pytest.raises(FsmmError, match="not those that it was run on"):
        Source.of_run(config, {**arrays, "clip_class": other})
    with pytest.raises(DrawnOtherwise, match="cannot be drawn again by this version"):
        Source.of_run(config, {**arrays, "draws_check": np.array("0" * 16)})


def test_a_result_keeps_no_features_alive(tmp_path: Path) -> None:
    found, _ = a_run(tmp_path, Protocol(n_query=4))
    assert isinstance(found.result, Evaluation)
    assert found.result.source is not None
    assert found.result.source.clips.tables == {}
    assert found.result.source.clips.words is None


def test_an_interval_draws_no_more_episodes_again_than_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intervals over clips and classes of many episodes are those of the first MOST."""
    found, _ = a_run(tmp_path, Protocol(n_query=4))
    assert isinstance(found.result, Evaluation)
    first = replace(
        found.result,
        accuracy=found.accuracy[:40],
        right_bits=found.result.right_bits[:40],
        confusion=np.eye(6),
    )
    monkeypatch.setattr(redraw, "MOST", 40)
    many = replace(found.result)
    for name in ("ci95_clips", "ci95_classes"):
        assert many.summary()[name] == first.summary()[name]
    assert many.summary()["ci95"] != first.summary()["ci95"]
