"""Training on some of the base clips: how many there are, and that fewer are among more."""

from __future__ import annotations

import torch
from tests_support import bank_of

from fsmm.episodes.clips import some_of


def test_fewer_clips_are_among_more_and_all_are_the_bank_itself() -> None:
    bank = bank_of(torch.randn(30, 3), torch.arange(30) % 3)
    few, more = (set(some_of(bank, n, seed=4).clip_row.tolist()) for n in (5, 12))
    assert (len(few), len(more)) == (5, 12)
    assert few <= more
    assert some_of(bank, 0, seed=4) is some_of(bank, 30, seed=4) is bank
