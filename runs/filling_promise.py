"""Whether the default for what clips lack keeps its promise on the tested episodes, found when it can change nothing.

The default is chosen by base and val classes and promises to be at least as good as every way alone, within the paired
interval over clips. Which way suits the classes of a test differs by more than other classes can tell, so a run answers
its episodes once more in every way, after its figure is made, and says where one of them is ahead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from ..errors import UsageError
from . import filling_choice
from .evaluation import Evaluation
from .filling import UNFILLED, WITHOUT_BASE, Pair, Rule, lacks
from .filling_choice import Beside, Filled, FillingChoice, can_serve, filled
from .over_clips import clip_uncertainty
from .result import Result
from .spec import RunSpec
from .statistics import Uncertainty, draw_uncertainty

EPISODES = 1000  # The first episodes of a test are answered in every way, and no more of them.

_ASKED = 3 * 9
"""The parts of base and val classes, times the candidates that each is asked about, of which there are 5 to 12."""

Ask = Callable[[Filled, int], Result]
"""Measures a head on so many of the first episodes of the test."""


def with_ways_beside(test: Filled, spec: RunSpec, result: Result, ask: Ask) -> FillingChoice | None:
    """The choice of a test with what every way alone reaches beside it; None where nothing was chosen.

    result: that of the test. ask: measures another way on its first episodes.
    """
    if test.choice is None or test.pair is None:
        return test.choice
    number = len(result.per_episode())
    if not number:  # A whole split is classified at once.
        return test.choice
    if number > EPISODES:
        result = ask(test, EPISODES)
    found = {_essence(test.pair, test, spec): result}
    ways = []
    for rule in get_args(Rule):
        if test.known is None and rule not in WITHOUT_BASE:
            continue
        pair = Pair(support=rule, query=rule)
        if not can_serve(pair, spec.protocol):
            continue
        essence = _essence(pair, test, spec)
        try:
            if essence not in found:
                found[essence] = ask(
                    filled(test.own_head, test.clips, pair, test.known), min(number, EPISODES)
                )
        except UsageError:  # Early fusion, say, cannot compare supports and queries of different modalities.
            continue
        ways.append(_beside(rule, found[essence], result))
    note = promise_text(ways, str(test.pair)) or ("" if test.choice.parts else test.choice.note)
    return replace(test.choice, beside=ways, note=note)


def episodes_beside(spec: RunSpec, episodes: int) -> int:
    """About how many episodes a run of so many answers to choose what becomes of what clips lack, and beside it."""
    if spec.when_missing != "auto" or not spec.protocol.withholds:
        return 0
    return _ASKED * filling_choice.EPISODES + len(get_args(Rule)) * min(episodes, EPISODES)


def promise_text(ways: Sequence[Beside], chosen: str) -> str:
    """The clause that says which ways alone are ahead of the chosen one, the largest gain first; "" where none is.

    >>> promise_text([Beside(way="mean", accuracy=0.84, gain=0.021, ci95=0.009)], "drop").partition(": ")[2]
    'mean by 2.1 ± 0.9 points; a way that is picked for this is picked on the tested classes'
    """
    ahead = sorted((each for each in ways if each.is_ahead), key=lambda each: -each.gain)
    if not ahead:
        return ""
    better = ", ".join(
        f"{each.way} by {100 * each.gain:.1f} ± {100 * (each.ci95 or 0):.1f} points" for each in ahead
    )
    return (
        f"on these episodes other ways with what clips lack are better than the one that was chosen ({chosen}): "
        f"{better}; a way that is picked for this is picked on the tested classes"
    )


def _essence(pair: Pair, test: Filled, spec: RunSpec) -> Pair:
    """The pair without what makes no difference: the rule of a side that lacks nothing, or how nothing is filled."""
    protocol, bank = spec.protocol, test.clips
    support: Rule = "linear" if pair.query == pair.support == "match-linear" else pair.support
    fills = support not in UNFILLED and lacks(protocol, bank, "support")
    return Pair(
        support=support if fills else "drop",
        query=pair.query if lacks(protocol, bank, "query") else "drop",
    )


def _beside(rule: Rule, result: Result, chosen: Result) -> Beside:
    """What a way alone reaches, beside the chosen one."""
    gain, ci95 = (0.0, 0.0) if result is chosen else gain_of(result, chosen)
    accuracy = float(result.summary()["accuracy"])
    return Beside(way=rule, accuracy=accuracy, gain=gain, ci95=ci95 if math.isfinite(ci95) else None)


def gain_of(result: Result, chosen: Result) -> tuple[float, float]:
    """The accuracy of a result minus the chosen way's, and its 95 % half width; NaN where there are no episodes."""
    values = result.per_episode().astype(np.float64) - chosen.per_episode()
    if not len(values):  # A whole split is classified at once.
        return math.nan, math.nan
    over_clips = _over_clips(result, chosen)
    return float(values.mean()), (over_clips or draw_uncertainty(values)).half_width()


def _over_clips(result: Result, chosen: Result) -> Uncertainty | None:
    """The uncertainty over clips of the difference of two results; None where there is none."""
    if not isinstance(result, Evaluation) or not isinstance(chosen, Evaluation) or result.draws is None:
        return None
    outcome = result.right.astype(np.int8) - chosen.right
    found = clip_uncertainty(outcome, result.draws, transductive=result.transductive)
    return None if found.reason else found
