"""What a shortcut is: another way to forward's logits, which saves work where a test allows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...episodes.sampler import EpisodeIndex
from .episode_test import EpisodeTest


@dataclass(frozen=True)
class Scorer:
    """A function from drawn episodes to their logits [B, Q, N], prepared for one test."""

    score: Callable[[EpisodeIndex], Tensor]

    def __call__(self, index: EpisodeIndex) -> Tensor:
        if (
            not torch.is_grad_enabled()
        ):  # an evaluation switches them off once, which costs more than some chunks
            return self.score(index)
        with torch.no_grad():
            return self.score(index)


class Shortcut(Protocol):
    """Another way to forward's logits, equal up to rounding. A law holds each to ``forward``."""

    def saves(self, test: EpisodeTest) -> float:
        """The share of the direct way's work that is saved, from 0 to 1; 0 where the way is closed or pays nothing."""
        ...

    def prepare(self, test: EpisodeTest) -> Scorer:
        """A scorer for the test, made for use where :meth:`saves` is above 0."""
        ...
