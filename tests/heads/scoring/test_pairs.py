"""The pair path gives what the direct path gives, for every head that claims it, and is taken only where it may be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.table import TensorTable
from fsmm.episodes.protocol import Missing, Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import METHODS, find
from fsmm.heads.scoring import pairs
from fsmm.runs.evaluate import evaluate

PAIRWISE = [name for name in METHODS if find(name)[0].load().pairwise]
TASK = Protocol(n_way=4, n_query=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> FeatureBank:
    root = synthetic_cache(
        tmp_path_factory.mktemp("c"), streams={"frame/net": (4, 16)}, absent=0.0, noise=2.0
    )
    return FeatureBank.load(root, ["frame"], split="novel", words=None).normalised("l2")


def moved(name: str, bank: FeatureBank) -> torch.nn.Module:
    """The head with every weight moved, so that nothing starts at zero."""
    torch.manual_seed(0)
    head = build_head(name, inputs_of(bank)).eval()
    with torch.no_grad():
        for weight in head.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return head


def test_the_heads_that_compare_pairs_are_known() -> None:
    assert {"otam", "trx", "strm", "tarn", "arn", "cmn"} <= set(PAIRWISE)


@pytest.mark.parametrize("name", PAIRWISE)
@pytest.mark.parametrize("shots", [1, 3])
def test_the_matrix_of_pairs_gives_the_direct_logits(name: str, shots: int, bank: FeatureBank) -> None:
    head, task = moved(name, bank), replace(TASK, k_shot=shots)
    if shots > 1 and not head.pools_shots:
        assert not pairs.pays(head, bank, task, 10**9)
        return
    assert pairs.pays(head, bank, task, 10**9)
    index = next(Sampler(bank, task).batches(0, 8, 8))
    direct = head.score(bank, index, task)
    found = pairs.pair_scorer(head, pairs.pair_matrix(head, bank))(index)
    torch.testing.assert_close(found, direct, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("direction", ["one", "both", "reversed"])
def test_pairs_that_share_distances_are_those_scored_apart(direction: str, bank: FeatureBank) -> None:
    table = bank.tables["frame"].gather(torch.arange(len(bank)))
    length = 1 + torch.arange(len(bank)) % 4
    cut = TensorTable(table.x * (torch.arange(4) < length[:, None])[..., None], length, table.present)
    bank = replace(bank, tables={"frame": cut})
    head = build_head("otam", inputs_of(bank), {"direction": direction}).eval()
    every = torch.arange(len(bank))
    torch.testing.assert_close(pairs.pair_matrix(head, bank), pairs.as_one_episode(head, bank, every, every))


def test_a_tile_fits_memory(bank: FeatureBank) -> None:
    head = moved("ta2n", bank)

    def side(bytes_a_pair: int) -> int:
        with patch.object(head, "episode_bytes", side_effect=lambda n, k, q: n * q * bytes_a_pair):
            return pairs._side(head)

    assert [side(b) for b in (1, 8_000, 100_000, 1 << 20)] == [256, 64, 64, 16]


def test_tiles_do_not_matter(bank: FeatureBank, monkeypatch: pytest.MonkeyPatch) -> None:
    head = moved("otam", bank)
    whole = pairs.pair_matrix(head, bank)
    monkeypatch.setattr(pairs, "_SIDES", (7, 7))
    torch.testing.assert_close(pairs.pair_matrix(head, bank), whole)


def test_it_is_taken_only_where_it_may_be(bank: FeatureBank) -> None:
    head = moved("otam", bank)
    many = 10**9
    assert pairs.pays(head, bank, TASK, many)
    assert not pairs.pays(head, bank, TASK, 1)
    for change in (
        {"missing": (Missing("frame", 0.5),)},
        {"dirichlet": 1.0},
        {"small_classes": "short"},
        {"query_modalities": ("frame",)},
        {"k_shot": 0},
    ):
        assert not pairs.pays(head, bank, replace(TASK, **change), many)
    absent = bank.tables["frame"].gather(torch.arange(len(bank)))
    absent.present[0] = False
    holed = replace(bank, tables={"frame": TensorTable(absent.x, absent.length, absent.present)})
    assert not pairs.pays(head, holed, TASK, many)


def test_a_head_that_reads_the_batch_does_not_claim_pairs(bank: FeatureBank) -> None:
    padded = build_head("tarn", inputs_of(bank), {"padded": "true"})
    assert not pairs.pays(padded, bank, TASK, 10**9)


def test_an_evaluation_takes_it_and_finds_the_same(bank: FeatureBank, tmp_path: Path) -> None:
    head, episodes = moved("otam", bank), 3000
    assert pairs.pays(head, bank, TASK, episodes)
    fast = evaluate(head, bank, TASK, episodes).accuracy
    few = np.concatenate([evaluate(head, bank, TASK, 10, first=i).accuracy for i in range(0, 200, 10)])
    assert not pairs.pays(head, bank, TASK, 10)
    assert (fast[:200] != few).mean() <= 0.01  # a tie that rounding decides
