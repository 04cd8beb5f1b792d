"""The Gram path gives what the direct path gives, and is chosen only where it may be."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from tests_support import bank_of, moved_head

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import METHODS
from fsmm.heads.scoring.gram import gram_of

LABEL = torch.arange(6).repeat_interleave(12)
PROTOCOL = Protocol(n_way=4, k_shot=3, n_query=5)
# heads that read pooled features of one modality and take no clip's step or word
POOLED = [
    name
    for name, method in METHODS.items()
    if not method.load().sequences and method.modalities != "two" and method.words != "needed"
]
CASES = [(name, {}) for name in POOLED] + [
    ("protonet", {"distance": "cosine"}),
    ("nearest", {"distance": "cosine"}),
    ("matching", {"distance": "l2"}),
    ("matching", {"distance": "dot", "scale": "3"}),
    ("matching", {"query_raw": "true"}),
    ("relation", {"pool": "mean"}),
    ("relation", {"start": "false"}),
    ("simpleshot", {"transform": "un"}),
    ("common-space", {"decision": "nearest"}),
]


def bank() -> FeatureBank:
    return bank_of(torch.nn.functional.normalize(torch.randn(72, 32) + 0.5, dim=-1), LABEL)


@pytest.mark.parametrize(("method", "settings"), CASES)
@pytest.mark.parametrize("shots", [1, 3])
def test_a_prepared_test_gives_the_posteriors_of_the_features(
    method: str, settings: dict[str, str], shots: int
) -> None:
    """Whatever a head prepares for many episodes (inner products, transformed features) changes rounding alone."""
    torch.manual_seed(0)
    clips, task = bank(), replace(PROTOCOL, k_shot=shots)
    head = moved_head(method, settings, clips)
    index = next(Sampler(clips, task).batches(0, 20, 20))
    direct = head.score(clips, index, task)
    found = head.scorer(clips, task, 10_000)(index)
    torch.testing.assert_close(torch.softmax(found, -1), torch.softmax(direct, -1), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("method", ["simpleshot", "matching", "relation", "semi-protonet", "common-space"])
def test_a_prepared_test_reads_no_features(method: str) -> None:
    clips = bank()
    head = moved_head(method, {}, clips)
    index = next(Sampler(clips, PROTOCOL).batches(0, 3, 3))
    score = head.scorer(clips, PROTOCOL, 10_000)
    clips.tables["frame"] = broken()
    assert score(index).shape == (3, 20, 4)


@pytest.mark.parametrize("method", ["bdcspn", "feat", "pal"])
def test_clips_are_prepared_only_where_episodes_draw_them_again(method: str) -> None:
    clips = bank()  # 72 clips; an episode draws 4 * (3 + 5)
    head = moved_head(method, {}, clips)
    with patch.object(head, "prepared", wraps=head.prepared) as prepared:
        head.scorer(clips, PROTOCOL, 2)
        assert not prepared.called
        head.scorer(clips, PROTOCOL, 3)
        assert prepared.called


def broken() -> TensorTable:
    """A table without a single clip."""
    none = torch.zeros(0, dtype=torch.int64)
    return TensorTable(torch.zeros(0, 1, 32), none, none > 0)


def test_the_path_is_not_taken_where_features_are_withheld_or_it_would_not_pay() -> None:
    clips = bank()
    head = build_head("protonet", inputs_of(clips))
    assert gram_of(head, clips, PROTOCOL, 10_000) is not None
    assert gram_of(head, clips, PROTOCOL, 1) is None
    assert gram_of(head, clips, replace(PROTOCOL, missing=(Missing("frame", 0.5),)), 10_000) is None
    assert gram_of(head, clips, replace(PROTOCOL, small_classes="short"), 10_000) is None
    for settings in ({"distance": "cosine", "epsilon": "0.01"}, {"embed": "4"}):
        assert not build_head("protonet", inputs_of(clips), settings).inner_products
