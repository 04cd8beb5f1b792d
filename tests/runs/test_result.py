"""Every kind of result answers the same questions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.runs.evaluation import Evaluation
from fsmm.runs.generalised import Generalised
from fsmm.runs.multi_label import MultiLabelEvaluation
from fsmm.runs.redraw import Source
from fsmm.runs.result import Result
from fsmm.runs.seen_unseen import Choice, Rule
from fsmm.runs.zero_shot import ZeroShot

EPISODES = np.array([0.5, 1.0, 0.75], np.float32)
COMMON = {"accuracy", "ci95", "ci95_clips", "ci95_classes", "per_class", "episodes", "eval_seconds"}
COMMON |= {"episodes_per_second", "excluded_classes"}


def evaluation() -> Evaluation:
    """Three episodes of two of three classes of four clips, one support and two queries each."""
    label = torch.arange(3).repeat_interleave(4)
    clips = FeatureBank(
        dataset="toy", split="novel", label_set="event", class_split="default", streams={}, tables={}, label=label,
        class_names=["a", "b", "c"], class_id=torch.arange(3), clip_row=np.arange(12),
    )  # fmt: skip
    right = np.array([[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 1]], bool)
    return Evaluation(
        accuracy=EPISODES, confusion=np.eye(3, dtype=np.int64), class_names=["a", "b", "c"], seconds=1.0, chunk=1,
        right_bits=np.packbits(right, axis=1), source=Source.of(clips, Protocol(n_way=2, n_query=2)),
    )  # fmt: skip


def multi_label() -> MultiLabelEvaluation:
    return MultiLabelEvaluation(
        average_precision=EPISODES.astype(np.float64), micro_f1=EPISODES, macro_f1=EPISODES, per_label={"a": 0.5},
        seconds=1.0, chunk=1, excluded=[],
    )  # fmt: skip


def zero_shot() -> ZeroShot:
    return ZeroShot(
        unseen=0.4, per_class={"a": 0.4}, confusion=np.eye(1, dtype=np.int64), class_names=["a"], clips=9, seconds=1.0
    )  # fmt: skip


def generalised(shots: int) -> Generalised:
    draws = 3 if shots else 1
    s, u = np.full(draws, 0.6), np.linspace(0.3, 0.5, draws)
    return Generalised(
        shots=shots, seen=s, unseen=u, harmonic=2 * s * u / (s + u), unseen_alone=u, seen_alone=s, cut=0.0,
        choice=Choice(rule=Rule()),
        confusion=np.eye(2, dtype=np.int64), class_names=["a", "b"], clips=9, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("result", [evaluation(), multi_label(), zero_shot(), generalised(0), generalised(5)])
def test_the_summary_is_json_and_agrees_with_what_is_stored(result: Result) -> None:
    summary, arrays, values = result.summary(), result.arrays(), result.per_episode()
    assert summary.keys() >= COMMON
    json.dumps(summary, allow_nan=False)
    assert arrays["accuracy"].dtype == values.dtype == np.float32
    assert arrays["accuracy"].mean() == pytest.approx(summary["accuracy"])
    assert len(arrays["accuracy"]) == summary["episodes"]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_an_accuracy_without_spread_has_a_bound_and_not_an_interval_of_zero_width(value: float) -> None:
    """Of n units that are all right, the share of others is below 1 - 0.05^(1/n) with 95 % confidence: about 3 / n."""
    episodes = 40
    right = np.full((episodes, 4), value, bool)
    perfect = replace(
        evaluation(), accuracy=np.full(episodes, value, np.float32), right_bits=np.packbits(right, axis=1)
    ).summary()
    assert perfect["accuracy"] == value
    assert perfect["one_sided"] == ["ci95", "ci95_clips", "ci95_classes"]
    assert perfect["ci95"] == pytest.approx(1 - 0.05 ** (1 / episodes))
    assert perfect["ci95_classes"] == pytest.approx(1 - 0.05 ** (1 / 3))
    # All twelve clips were asked, and the classes count almost alike.
    assert perfect["ci95_clips"] == pytest.approx(1 - 0.05 ** (1 / 12), rel=0.1)


def test_only_episodes_have_figures_an_episode() -> None:
    assert np.array_equal(evaluation().per_episode(), EPISODES)
    assert np.array_equal(multi_label().per_episode(), EPISODES)
    assert zero_shot().per_episode().shape == generalised(0).per_episode().shape == (0,)
    assert generalised(5).per_episode().shape == (3,)
    assert zero_shot().accuracy == 0.4
    assert generalised(0).accuracy == pytest.approx(2 * 0.6 * 0.3 / 0.9)
