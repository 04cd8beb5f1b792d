"""What a run says where base or val classes prefer another way with what clips lack than the chosen one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests_support import random_bank

from fsmm.episodes.protocol import Missing, Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.runs.evaluation import Evaluation
from fsmm.runs.filling import BaseClips
from fsmm.runs.filling_choice import Filled, choose
from fsmm.runs.filling_doubts import doubt_of_all, doubts_of
from fsmm.runs.measure import measure
from fsmm.runs.result import Result

TASK = Protocol(n_way=3, k_shot=2, n_query=4, missing=(Missing("audio", 0.6, "query"),))
BASE = random_bank({"frame": (1, 6), "audio": (1, 4)}, classes=8, clips=12)
VAL = random_bank({"frame": (1, 6), "audio": (1, 4)}, classes=6, clips=12, seed=1)
HEAD = build_head("protonet-ec", inputs_of(VAL))


def scored(found: Evaluation, outcome: np.ndarray) -> Evaluation:
    """The result with these outcomes of its queries, bool [E, Q]."""
    bits = np.packbits(outcome, axis=1)
    return replace(found, accuracy=outcome.mean(1).astype(np.float32), right_bits=bits)


def result() -> Evaluation:
    found = measure(HEAD, VAL, replace(TASK, missing=()), 200)
    assert isinstance(found, Evaluation)
    return found


@pytest.fixture(scope="module")
def pair() -> tuple[Evaluation, Evaluation]:
    """A result in which six queries of ten are right, and one in which a fifth of the others are right, too."""
    found, chance = result(), np.random.default_rng(0)
    some, more = (chance.random(found.right.shape) < share for share in (0.6, 0.2))
    return scored(found, some), scored(found, some | more)


def test_a_way_that_is_better_beyond_the_interval_raises_a_doubt(pair: tuple[Evaluation, Evaluation]) -> None:
    chosen, better = pair
    (doubt,) = doubts_of("val classes", {"mean": chosen, "drop": better, "zero": chosen}, "mean")
    assert (doubt.part, doubt.way) == ("val classes", "drop")
    assert doubt.gain == pytest.approx(better.mean - chosen.mean)
    assert 0 < doubt.ci95 < doubt.gain
    assert not doubts_of("val classes", {"drop": better, "mean": chosen}, "drop")


def test_a_gain_within_the_interval_over_clips_raises_none() -> None:
    """Two clips of 72 are classified rightly by one way alone: other clips might be by the other."""
    found = result()
    assert found.draws is not None
    own = np.isin(found.draws.query, [0, 12])
    chosen, better = (scored(found, found.right & ~own | (own & gained)) for gained in (False, True))
    gain = better.accuracy.astype(float) - chosen.accuracy
    assert gain.mean() > 4 * gain.std() / np.sqrt(len(gain)), "it is certain over draws"
    assert not doubts_of("val classes", {"mean": chosen, "drop": better}, "mean")


def test_without_an_interval_over_clips_that_over_draws_counts(pair: tuple[Evaluation, Evaluation]) -> None:
    chosen, better = (replace(each, source=None, right_bits=None) for each in pair)
    (doubt,) = doubts_of("val classes", {"mean": chosen, "drop": better}, "mean")
    difference = better.accuracy.astype(float) - chosen.accuracy
    assert doubt.ci95 == pytest.approx(1.972 * difference.std(ddof=1) / np.sqrt(200), rel=1e-3)


def recalled(found: Evaluation, right: list[int]) -> Evaluation:
    """The result in which so many of ten queries of each class are classified rightly."""
    wrong = 10 - np.array(right)
    return replace(found, confusion=np.diag(right) + np.roll(np.diag(wrong), 1, axis=1))


def test_what_all_classes_prefer_raises_a_doubt_without_being_certain() -> None:
    """Every class counts once, whatever its part; a way that some part cannot answer is none."""
    found = result()
    parts = [
        {"mean": recalled(found, [5, 5]), "drop": recalled(found, [7, 6]), "zero": recalled(found, [9, 9])},
        {"mean": recalled(found, [5, 5, 5, 5]), "drop": recalled(found, [4, 5, 6, 5])},
    ]
    (doubt,) = doubt_of_all("all", parts, "mean")
    gains = np.array([0.2, 0.1, -0.1, 0, 0.1, 0])
    assert (doubt.way, doubt.gain) == ("drop", pytest.approx(gains.mean()))
    assert doubt.ci95 == pytest.approx(2.571 * gains.std(ddof=1) / np.sqrt(6), rel=1e-3)
    assert doubt.ci95 > doubt.gain, "it is not certain"
    assert not doubt_of_all("all", parts, "drop")


@pytest.mark.parametrize("agree", [True, False])
def test_a_choice_on_which_the_parts_disagree_is_told(agree: bool) -> None:
    """Matched queries are right more often on base classes, and on val classes if they agree; else dropped ones are."""

    def ask(made: Filled, task: Protocol, episodes: int) -> Result:
        found = measure(HEAD, made.clips, replace(task, missing=()), episodes)
        assert isinstance(found, Evaluation)
        assert made.pair is not None
        best = "match" if agree or len(made.clips) < len(VAL) else "drop"
        share = 0.9 if made.pair.query == best else 0.7
        chance = np.random.default_rng(0 if best == "match" else 1)
        return scored(found, chance.random(found.right.shape) < share)

    choice = choose(HEAD, TASK, known=BaseClips(BASE), val=VAL, test=VAL, trained=False, ask=ask)
    assert choice.query == "match"
    assert {"val classes"} <= set(choice.scores_by_part)
    assert len(choice.scores_by_part) == 3
    told = [(doubt.part, doubt.way) for doubt in choice.doubts]
    assert told == ([] if agree else [("val classes", "drop")])
    assert ("val classes prefer drop by" in choice.note) is not agree
