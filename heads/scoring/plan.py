"""Which way to a test's logits is taken: the shortcut that saves most, or forward on gathered features."""

from __future__ import annotations

from typing import Any

from ...episodes.gather import materialise
from ..head import Head
from .episode_test import EpisodeTest
from .shortcut import Scorer, Shortcut


def scorer(head: Head[Any], test: EpisodeTest) -> Scorer:
    """A function from drawn episodes of the test to their logits [B, Q, N], by the way that saves most."""
    way = best_shortcut(head, test)
    return direct(head, test) if way is None else way.prepare(test)


def best_shortcut(head: Head[Any], test: EpisodeTest) -> Shortcut | None:
    """The shortcut of the head that saves most on the test; None where none saves anything."""
    saved = [(way.saves(test), way) for way in head.shortcuts()]
    most, way = max(saved, key=lambda each: each[0], default=(0.0, None))
    return way if most > 0 else None


def direct(head: Head[Any], test: EpisodeTest) -> Scorer:
    """Forward on the gathered features of every episode."""
    return Scorer(lambda index: head(materialise(test.bank, index, test.protocol, test.unlabelled)))
