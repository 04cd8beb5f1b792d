"""Every kind of result answers the same questions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fsmm.runs.evaluate import Evaluation
from fsmm.runs.multi_label import MultiLabelEvaluation
from fsmm.runs.result import Result
from fsmm.runs.statistics import DrawCounts
from fsmm.runs.zero_shot import ZeroShot

EPISODES = np.array([0.5, 1.0, 0.75], np.float32)
COMMON = {"accuracy", "ci95", "ci95_clips", "ci95_classes", "per_class", "episodes", "eval_seconds"}
COMMON |= {"episodes_per_second", "excluded_classes"}


def evaluation() -> Evaluation:
    label = np.repeat(np.arange(3), 4)
    counts = DrawCounts.empty(label, 3)
    counts.add(np.array([[0, 1], [1, 2], [0, 2]]), np.array([[0, 4], [5, 8], [1, 9]]), EPISODES)
    return Evaluation(
        accuracy=EPISODES, confusion=np.eye(3, dtype=np.int64), class_names=["a", "b", "c"], counts=counts, ways=2,
        seconds=1.0, chunk=1,
    )  # fmt: skip


def multi_label() -> MultiLabelEvaluation:
    return MultiLabelEvaluation(
        average_precision=EPISODES.astype(np.float64), micro_f1=EPISODES, macro_f1=EPISODES, per_label={"a": 0.5},
        seconds=1.0, chunk=1, excluded=[],
    )  # fmt: skip


def zero_shot(harmonic: float | None) -> ZeroShot:
    return ZeroShot(
        unseen=0.4, seen=None if harmonic is None else 0.6, harmonic=harmonic, bias=0.0, per_class={"a": 0.4},
        confusion=np.eye(1, dtype=np.int64), class_names=["a"], clips=9, seconds=1.0, curve=[],
    )  # fmt: skip


@pytest.mark.parametrize("result", [evaluation(), multi_label(), zero_shot(None), zero_shot(0.48)])
def test_the_summary_is_json_and_agrees_with_what_is_stored(result: Result) -> None:
    summary, arrays, values = result.summary(), result.arrays(), result.per_episode()
    assert summary.keys() >= COMMON
    json.dumps(summary, allow_nan=False)
    assert arrays["accuracy"].dtype == values.dtype == np.float32
    assert arrays["accuracy"].mean() == pytest.approx(summary["accuracy"])
    assert len(arrays["accuracy"]) == summary["episodes"]


def test_only_episodes_have_figures_an_episode() -> None:
    assert np.array_equal(evaluation().per_episode(), EPISODES)
    assert np.array_equal(multi_label().per_episode(), EPISODES)
    assert zero_shot(0.48).per_episode().shape == (0,)
    assert zero_shot(0.48).accuracy == 0.48
    assert zero_shot(None).accuracy == 0.4
