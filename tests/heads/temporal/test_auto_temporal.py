"""The matching is chosen by base classes: an alignment where order is all, and never by labels of the test."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from temporal_support import DIM, STEPS, episode, head, order_cache
from tests_support import random_bank

from fsmm.cache.bank import FeatureBank
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.temporal.auto_temporal import CANDIDATES, AutoTemporal


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


def test_the_most_accurate_is_kept_and_decides() -> None:
    made = fitted(random_bank({"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64, seed=3))
    assert made.chosen()["matching"] == CANDIDATES[int(made.accuracy.argmax())]
    task = episode(ways=4)
    alone = head("chamfer", {"matching": made.chosen()["matching"]})
    assert torch.allclose(made(task), alone(task))
    assert not made.notes()


def test_val_classes_take_part_where_there_are_any() -> None:
    bank = partial(random_bank, {"frame": (STEPS, DIM)}, classes=6, clips=10, dtype=torch.float64)
    made = fitted(bank(seed=3))
    base = made.accuracy.clone()
    made.fit_val(bank(seed=4))
    both = made.chosen()
    val = torch.tensor([both[f"val accuracy of {name}"] for name in CANDIDATES])
    assert torch.allclose(made.accuracy, (base + val) / 2)
    assert not torch.equal(base, val)
    assert both["matching"] == CANDIDATES[int(made.accuracy.argmax())]


def test_too_few_base_classes_leave_chamfer_and_say_so() -> None:
    made = fitted(random_bank({"frame": (STEPS, DIM)}, classes=1, clips=4, dtype=torch.float64, seed=3))
    assert made.chosen() == {"matching": "chamfer++"}
    assert "too few" in made.notes()[0]
