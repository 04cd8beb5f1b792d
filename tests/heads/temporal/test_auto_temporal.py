"""The matching is chosen by base classes: an alignment where order is all, and never by labels of the test."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from temporal_support import DIM, STEPS, episode, head, order_cache
from tests_support import random_bank

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.gather import materialise
from fsmm.episodes.protocol import Protocol
from fsmm.episodes.sampler import Sampler
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.scoring.episode_test import EpisodeTest
from fsmm.heads.temporal.auto_temporal import NAMES, AutoTemporal, together


def fitted(base: FeatureBank) -> AutoTemporal:
    made = build_head("auto-temporal", inputs_of(base, way=4, shot=1))
    assert isinstance(made, AutoTemporal)
    made.fit_base(base)
    return made


def test_order_asks_for_a_matching_that_sees_it(tmp_path: Path) -> None:
    load = partial(FeatureBank.load, order_cache(tmp_path), ["frame"], dataset="order", words=None)
    made = fitted(load(split="base").normalised("l2"))
    assert made.chosen()["matching"] != "mean"
    assert float(made.accuracy[0]) < float(made.accuracy.max()) - 0.1


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_what_was_chosen_decides(number: int) -> None:
    made = fitted(random_bank({"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64, seed=3))
    made.choice.fill_(number)
    task = episode(ways=4)
    alone = [head("chamfer", {"matching": each})(task) for each in made.chosen()["matching"].split(" and ")]
    if len(alone) == 1:
        assert torch.allclose(made(task), alone[0])
    else:
        scaled = [(x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) for x in alone]
        assert torch.equal(made(task).argsort(-1), sum(scaled[1:], scaled[0]).argsort(-1))
    assert not made.notes()


def test_two_matchings_have_an_equal_say() -> None:
    first, second = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0)).double()
    both = together([first, second])
    assert torch.allclose(both, together([first, 100 * second + 7]))
    assert torch.allclose(together([first, first]), first - first.mean(-1, keepdim=True))


def test_chamfer_stays_unless_another_is_surely_better() -> None:
    made = fitted(random_bank({"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64, seed=3))
    made.base_accuracy.copy_(torch.tensor([0.5, 0.5, 0.53, 0.52]))
    made.base_error.copy_(torch.tensor([0.01, 0.0, 0.02, 0.01]))
    assert NAMES[int(made._most_accurate())] == "chamfer++ and otam"
    made.base_error.copy_(torch.tensor([0.01, 0.0, 0.01, 0.01]))
    assert NAMES[int(made._most_accurate())] == "otam"


def test_val_classes_take_part_where_there_are_any() -> None:
    bank = partial(random_bank, {"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64)
    made = fitted(bank(seed=3))
    base = made.accuracy.clone()
    made.fit_val(bank(seed=4))
    both = made.chosen()
    val = torch.tensor([both[f"val accuracy of {name}"] for name in NAMES])
    assert torch.allclose(made.accuracy, (base + val) / 2)
    assert not torch.equal(base, val)
    assert both["matching"] == NAMES[int(made.choice)]


def test_too_few_base_classes_leave_chamfer_and_say_so() -> None:
    made = fitted(random_bank({"frame": (STEPS, DIM)}, classes=1, clips=4, dtype=torch.float64, seed=3))
    assert made.chosen() == {"matching": "chamfer++"}
    assert "too few" in made.notes()[0]


@pytest.mark.parametrize("shots", [1, 2])
def test_two_matchings_take_their_shortcuts_to_the_same_logits(shots: int) -> None:
    bank = random_bank({"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64, seed=3)
    made = build_head("auto-temporal", inputs_of(bank, way=4, shot=shots)).double()
    assert isinstance(made, AutoTemporal)
    made.choice.fill_(NAMES.index("chamfer++ and otam"))
    task = Protocol(n_way=4, k_shot=shots, n_query=5)
    (way,) = made.shortcuts()
    test = EpisodeTest(bank=bank, protocol=task, episodes=400)
    (index,) = Sampler(bank, task).batches(0, 20, 20)
    assert way.saves(test) > 0
    quick, direct = way.prepare(test)(index), made(materialise(bank, index, task))
    assert torch.allclose(quick.double(), direct.double(), atol=1e-4)  # pairs are kept in single precision
