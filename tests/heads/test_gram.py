"""The Gram path gives what the direct path gives, and is chosen only where it may be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests_support import bank_of

from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.gram import gram_of

LABEL = torch.arange(6).repeat_interleave(12)
PROTOCOL = Protocol(n_way=4, k_shot=3, n_query=5)


@pytest.mark.parametrize("method", ["protonet", "nearest"])
def test_gram_and_features_give_the_same_posteriors(method: str) -> None:
    torch.manual_seed(0)
    bank = bank_of(torch.randn(72, 10), LABEL)
    head = build_head(method, inputs_of(bank))
    index = next(Sampler(bank, PROTOCOL).batches(0, 20, 20))
    gram = gram_of(bank, PROTOCOL, 10_000)
    assert gram is not None
    direct = head(materialise(bank, index, PROTOCOL))
    by_gram = head.gram_logits(gram, index)
    assert torch.softmax(by_gram, -1) == pytest.approx(torch.softmax(direct, -1), abs=1e-5)


def test_the_path_is_not_taken_where_features_are_withheld_or_it_would_not_pay() -> None:
    bank = bank_of(torch.randn(72, 10), LABEL)
    assert gram_of(bank, PROTOCOL, 1) is None
    assert gram_of(bank, replace(PROTOCOL, missing=(Missing("frame", 0.5),)), 10_000) is None
    assert gram_of(bank, replace(PROTOCOL, small_classes="short"), 10_000) is None
    assert not build_head("protonet", inputs_of(bank), {"distance": "cosine"}).inner_products
