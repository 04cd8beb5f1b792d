"""The intervals: against independent slow computations, and their coverage in simulation."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch
from tests_support import bank_of

from fsmm.episodes.protocol import Protocol
from fsmm.heads.head import Head, Inputs
from fsmm.heads.metric.nearest import NearestNeighbour
from fsmm.heads.metric.protonet import ProtoNet
from fsmm.runs import statistics
from fsmm.runs.evaluate import evaluate
from fsmm.runs.statistics import DrawCounts

# Simulated test sets; FSMM_WORLDS=400 makes the table of docs/statistics.md.
WORLDS = int(os.environ.get("FSMM_WORLDS", "120"))


def slow_clip_variance(
    values: np.ndarray, drawn: np.ndarray, clip_class: np.ndarray, classes: np.ndarray
) -> float:
    """The formula of docs/statistics.md written episode by episode. drawn [E, n], classes [E, C] are 0/1."""
    episodes, mean, variance = len(values), values.mean(), values.var()
    total = 0.0
    for c in range(classes.shape[1]):
        with_c = np.flatnonzero(classes[:, c])
        members = np.flatnonzero(clip_class == c)
        n_c, e_c, ways = len(members), len(with_c), classes.sum(1).mean()
        m = drawn[np.ix_(with_c, members)].sum() / e_c
        squares = 0.0
        for i in members:
            squares += np.mean([(values[e] - mean) * (drawn[e, i] - m / n_c) for e in with_c]) ** 2
        noise = n_c * variance * (m / n_c) * (1 - m / n_c) / e_c
        share = e_c / episodes
        assert share == pytest.approx(ways / classes.shape[1], abs=0.2)
        total += share**2 * (n_c - 1) / n_c * (n_c / (n_c - m)) ** 2 * (squares - noise)
    return max(total, 0.0) + variance / episodes


def test_the_sums_give_the_slow_formula() -> None:
    rng = np.random.default_rng(0)
    clip_class = np.repeat(np.arange(5), 7)
    episodes, ways, per_class = 60, 3, 4
    counts = DrawCounts.empty(clip_class, 5)
    values = rng.random(episodes)
    drawn, present = np.zeros((episodes, 35)), np.zeros((episodes, 5))
    for e in range(episodes):
        chosen = rng.permutation(5)[:ways]
        clips = np.concatenate([rng.permutation(np.flatnonzero(clip_class == c))[:per_class] for c in chosen])
        drawn[e, clips], present[e, chosen] = 1, 1
        counts.add(chosen[None], clips[None], values[e : e + 1])
    fast = statistics.clip_interval(values, counts) / statistics._normal_quantile(0.95)
    assert fast == pytest.approx(math.sqrt(slow_clip_variance(values, drawn, clip_class, present)), rel=1e-9)

    mean, variance = values.mean(), values.var()
    cov = np.array([np.mean((values - mean) * (present[:, c] - ways / 5)) for c in range(5)])
    total = 4 / 5 * (5 / 2) ** 2 * ((cov**2).sum() - 5 * variance * 0.6 * 0.4 / episodes)
    from scipy.stats import t

    expected = t.ppf(0.975, 4) * math.sqrt(max(total, 0) + variance / episodes)
    # cov_c uses class_times for the centring; with equal ways both forms agree up to the drawn share
    assert statistics.class_interval(values, counts, ways) == pytest.approx(expected, rel=0.35)


def test_the_draw_interval_is_the_normal_one() -> None:
    values = np.random.default_rng(1).random(500)
    assert statistics.draw_interval(values) == pytest.approx(
        1.959964 * values.std(ddof=1) / math.sqrt(500), rel=1e-6
    )
    assert math.isnan(statistics.draw_interval(values[:1]))


def test_where_an_interval_has_no_value_it_is_nan() -> None:
    counts = DrawCounts.empty(np.repeat(np.arange(3), 2), 3)
    for _ in range(4):  # all classes and all clips in every episode
        counts.add(np.arange(3)[None], np.arange(6)[None], np.array([0.5]))
    assert math.isnan(statistics.clip_interval(np.full(4, 0.5), counts))
    assert math.isnan(statistics.class_interval(np.full(4, 0.5), counts, 3))


def world(rng: np.random.Generator, classes: int, clips: int, kind: str, means: np.ndarray | None = None):
    """Clips [C * n, D] of Gaussian, or heavy-tailed skewed, classes; and the class means."""
    means = 0.6 * rng.normal(size=(classes, 16)) if means is None else means
    shape = (classes, clips, 16)
    noise = rng.normal(size=shape) if kind == "gauss" else (rng.gamma(0.5, 1.0, shape) - 0.5) * math.sqrt(2)
    return torch.from_numpy((means[:, None] + noise).reshape(-1, 16)).float(), means


@pytest.mark.slow
@pytest.mark.parametrize("head_class", [ProtoNet, NearestNeighbour])
@pytest.mark.parametrize("kind", ["gauss", "skewed"])
def test_intervals_hold_the_truth_on_fresh_clips_and_fresh_classes(head_class: type[Head], kind: str) -> None:
    """Coverage of the 95 % intervals over WORLDS simulated test sets lies between 90 and 99 % (clips: fixed classes,
    fresh clips; classes: fresh classes too). The binomial standard error of a coverage of .95 is .02, so the bounds
    are widened by two of them; the draw interval must fail clearly, which is why the others exist.
    """
    rng = np.random.default_rng(42)
    head = head_class(Inputs(streams={"frame": (1, 16)}), head_class.Settings())
    protocol, classes, clips, worlds, episodes = Protocol(k_shot=3, n_query=5), 20, 30, WORLDS, 1200
    label = torch.arange(classes).repeat_interleave(clips)
    _, fixed = world(rng, classes, clips, kind)
    big = torch.arange(classes).repeat_interleave(800)
    truth_clips = evaluate(
        head,
        bank_of(world(rng=rng, classes=classes, clips=800, kind=kind, means=fixed)[0], big),
        protocol,
        20_000,
    ).mean
    many = torch.arange(600).repeat_interleave(40)
    truth_classes = evaluate(head, bank_of(world(rng, 600, 40, kind)[0], many), protocol, 20_000).mean
    held = np.zeros(3)
    for _ in range(worlds):
        same = evaluate(
            head,
            bank_of(world(rng=rng, classes=classes, clips=clips, kind=kind, means=fixed)[0], label),
            protocol,
            episodes,
        )
        fresh = evaluate(head, bank_of(world(rng, classes, clips, kind)[0], label), protocol, episodes)
        a, b = same.summary(), fresh.summary()
        held += [
            abs(a["accuracy"] - truth_clips) <= a["ci95_clips"],
            abs(b["accuracy"] - truth_classes) <= b["ci95_classes"],
            abs(b["accuracy"] - truth_classes) <= b["ci95"],
        ]
    clips_held, classes_held, draws_held = held / worlds
    print(
        f"{head_class.__name__} {kind}: clips {clips_held:.3f} classes {classes_held:.3f} draws {draws_held:.3f}"
    )
    assert 0.86 <= clips_held <= 1.0
    assert 0.86 <= classes_held <= 1.0
    assert draws_held < 0.7
