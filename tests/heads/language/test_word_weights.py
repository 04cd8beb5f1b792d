"""Class words as classifier weights: shared spaces, maps fitted to base classes, and what base classes choose."""

from __future__ import annotations

import pytest
import torch
from tests_support import bank_of
from torch.nn import functional as F
from word_support import DIM, WORD, spoken_bank, word_episodes

from fsmm.errors import UsageError
from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.heads.language.word_weights import SHARED_SCALE, WordWeights


def test_a_class_is_read_by_a_map_that_has_not_seen_it() -> None:
    base = spoken_bank()
    weights = WordWeights(WORD, DIM, shared=False, scale=None).double()
    unseen = weights.fit(base)
    assert unseen is not None
    words, ridge = base.words, float(weights.ridge)
    assert words is not None
    x = F.normalize(base.tables["frame"].gather(torch.arange(len(base))).pooled(), dim=-1)
    centre = torch.stack([x[base.label == c].mean(0) for c in range(len(words))])
    # The penalty is relative to the words of all classes, so a refit without one takes the same absolute penalty.
    penalty = ridge * (words - words.mean(0)).square().sum(1).mean()
    for c in (0, 4):
        kept = torch.arange(len(words)) != c
        w, y = words[kept], centre[kept]
        away = w - w.mean(0)
        slope = torch.linalg.solve(away.T @ away + penalty * torch.eye(WORD), away.T @ (y - y.mean(0)))
        assert torch.allclose((words[c] - w.mean(0)) @ slope + y.mean(0), unseen[c], atol=1e-6)


def test_words_that_explain_the_classes_are_mapped_to_them() -> None:
    base = spoken_bank(noise=0.1, classes=30)
    weights = WordWeights(WORD, DIM, shared=False, scale=None).double()
    unseen = weights.fit(base)
    assert unseen is not None
    x = F.normalize(base.tables["frame"].gather(torch.arange(len(base))).pooled(), dim=-1)
    found = (x @ F.normalize(unseen, dim=-1).T).argmax(1) == base.label
    assert float(found.double().mean()) > 0.8


def test_words_as_wide_as_features_are_the_weights() -> None:
    weights = WordWeights(DIM, DIM, shared=True, scale=None)
    words = torch.randn(3, DIM)
    assert torch.equal(weights(words), words)
    assert float(weights.scale) == SHARED_SCALE
    assert float(WordWeights(DIM, DIM, shared=True, scale=20.0).scale) == 20.0


def test_too_few_base_classes_leave_no_map() -> None:
    bank = bank_of(torch.randn(4, DIM), torch.tensor([0, 0, 1, 1]), words=torch.randn(2, WORD))
    assert WordWeights(WORD, DIM, shared=False, scale=None).fit(bank) is None


def test_a_shared_space_has_one_width() -> None:
    inputs = Inputs(streams={"frame": (1, DIM)}, word_dim=WORD)
    with pytest.raises(UsageError, match=f"have {WORD} and {DIM} numbers"):
        build_head("tip-adapter", inputs, {"space": "shared"})
    mapped = build_head("tip-adapter", Inputs(streams={"frame": (1, DIM)}, word_dim=DIM), {"space": "mapped"})
    assert mapped.double()(word_episodes()).shape == (2, 5, 4)
