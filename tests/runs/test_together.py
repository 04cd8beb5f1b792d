"""Whole splits under methods that decide clips together: all clips at once, and no hint of which classes are unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import bank_of

from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.runs.run import episode_eval
from fsmm.runs.zero_shot import BLOCK, zero_shot

CLASSES, DIM = 4, 6


def test_the_order_of_clips_changes_nothing() -> None:
    chance = torch.Generator().manual_seed(0)
    words = torch.randn(CLASSES, DIM, generator=chance)
    label = torch.arange(CLASSES).repeat_interleave(BLOCK // CLASSES + 20)
    x = words[label] + 1.5 * torch.randn(len(label), DIM, generator=chance)
    bank = bank_of(x, label, words=words)
    head = build_head("em-dirichlet", Inputs(streams={"frame": (1, DIM)}, word_dim=DIM, way=CLASSES))
    shuffled = bank.rows(torch.randperm(len(label), generator=chance).numpy())
    found, other = (zero_shot(head, clips, transductive=True) for clips in (bank, shuffled))
    np.testing.assert_array_equal(found.confusion, other.confusion)
    assert found.summary()["effective_classes"] == {"mean": 4.0, "least": 4, "most": 4}
    assert zero_shot(head, bank).summary()["effective_classes"] is None


@pytest.mark.parametrize(("method", "shots"), [("bdcspn", 1), ("em-dirichlet", 0)])
def test_a_generalised_test_is_refused(method: str, shots: int, make_cache: Callable[..., Path]) -> None:
    protocol = Protocol(n_way=0, k_shot=shots, generalised=True)
    with pytest.raises(UsageError, match="not transductive"):
        episode_eval(method, cache=make_cache(), modalities=["frame"], protocol=protocol, episodes=1)
