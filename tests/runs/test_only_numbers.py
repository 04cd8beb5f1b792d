"""A head whose logits are not numbers gives a sentence and no figure."""

from __future__ import annotations

import math

import pytest
import torch
from tests_support import bank_of
from torch import Tensor

from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.errors import FsmmError
from fsmm.heads.build import build_head
from fsmm.heads.head import Head, Inputs
from fsmm.heads.settings import Settings
from fsmm.runs.evaluate import evaluate
from fsmm.runs.only_numbers import only_numbers

INPUTS = Inputs(streams={"frame": (1, 4)})


class Lost(Head[Settings]):
    """A head of whose logits some are not numbers."""

    Settings = Settings

    def forward(self, episodes: Episodes) -> Tensor:
        logits = torch.zeros(episodes.batch, episodes.queries, episodes.ways)
        logits[:, 0, 1] = math.nan
        return logits


@pytest.mark.parametrize("episodes", [1, 300])
def test_an_evaluation_ends_with_a_sentence(episodes: int) -> None:
    label = torch.arange(6).repeat_interleave(8)
    bank = bank_of(torch.randn(48, 4, generator=torch.Generator().manual_seed(0)), label)
    protocol = Protocol(n_way=5, k_shot=1, n_query=2)
    with pytest.raises(FsmmError, match="not numbers"):
        evaluate(Lost(INPUTS, Settings()), bank, protocol, episodes)
    assert evaluate(build_head("protonet", INPUTS), bank, protocol, episodes).accuracy.shape == (episodes,)


def test_infinite_logits_are_decisions() -> None:
    logits = torch.tensor([[[math.inf, -math.inf, 0.0]]])
    assert only_numbers(logits) is logits
