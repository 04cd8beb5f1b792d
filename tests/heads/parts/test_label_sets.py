"""Several label sets: each set has its own loss, and a clip without its labels says nothing in it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests_support import bank_of
from torch.nn import functional as F

from fsmm.cache.bank import FeatureBank
from fsmm.heads.parts.label_sets import LabelSets

NAMES = ["theme: a", "theme: b", "theme: c", "tags: x", "tags: y"]
LABEL = torch.tensor([[1, 0, 0, 1, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 1, 1, 0]], dtype=torch.uint8)


def bank() -> FeatureBank:
    made = bank_of(torch.zeros(4, 3), torch.arange(4))
    return replace(made, label=LABEL, label_set="theme+tags", class_names=NAMES, class_id=torch.arange(5))


def test_one_label_of_a_set_is_a_softmax_and_several_are_binary() -> None:
    sets = LabelSets(5)
    sets.fit(bank())
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    theme = F.cross_entropy(logits[[0, 1, 3], :3], torch.tensor([0, 1, 2]))
    tags = F.binary_cross_entropy_with_logits(logits[[0, 2, 3], 3:], LABEL[[0, 2, 3], 3:].float())
    assert float(sets.loss(logits, LABEL)) == pytest.approx(float((theme + tags) / 2))


def test_a_clip_without_labels_changes_nothing() -> None:
    sets = LabelSets(5)
    sets.fit(bank())
    logits = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    more = torch.cat([LABEL, torch.zeros_like(LABEL[:1])])
    assert float(sets.loss(logits, more)) == pytest.approx(float(sets.loss(logits[:4], LABEL)))
    assert float(sets.loss(logits[4:], more[4:])) == 0.0
