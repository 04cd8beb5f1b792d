"""Classes that differ in the order of shared ingredients only: means are blind to it, temporal heads are not."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from temporal_support import order_cache

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.protocol import Protocol
from fsmm.heads.build import build_head, inputs_of
from fsmm.heads.registry import find
from fsmm.heads.settings import update_settings
from fsmm.runs.evaluate import evaluate
from fsmm.runs.train import train

CHANCE = 0.2
TASK = Protocol(n_way=5, k_shot=1, n_query=4)
BRIEF = {"steps": "20", "ceiling": "1", "tasks": "2", "query": "3", "evaluate_every": "10", "evaluate_episodes": "20",
         "optimiser": "adam", "rate": "1e-3", "mix": "0"}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return order_cache(tmp_path_factory.mktemp("order"))


def accuracy(cache: Path, name: str, settings: dict[str, str]) -> tuple[float, float]:
    """Mean and standard error over novel episodes after a short training, where there is something to train."""
    torch.manual_seed(0)
    load = partial(FeatureBank.load, cache, ["frame"], dataset="order", words=None)
    base, val, novel = (load(split=split).normalised("l2") for split in ("base", "val", "novel"))
    head = build_head(name, inputs_of(novel), settings)
    if not find(name)[0].reads_time:
        base, val, novel = (bank.pooled() for bank in (base, val, novel))
    if any(p.requires_grad for p in head.parameters()):
        train(head=head, base=base, val=val, protocol=TASK, recipe=update_settings(head.recipe, BRIEF, name))
    found = evaluate(head, novel, TASK, 120).accuracy
    return float(found.mean()), float(found.std() / len(found) ** 0.5)


def test_means_are_at_chance(cache: Path) -> None:
    mean, error = accuracy(cache, "protonet", {})
    assert abs(mean - CHANCE) < 5 * error + 0.02


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("otam", {}),
        ("otam", {"direction": "both"}),
        ("otam", {"direction": "reversed", "gamma": "0"}),
        ("trx", {"width": "32", "cardinalities": "2"}),
        ("strm", {"width": "32", "cardinalities": "2"}),
        ("hyrsm", {"position_a": "160"}),
        ("hyrsmpp", {"position_a": "160"}),
        ("ta2n", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value.values()),
)
def test_heads_that_read_time_are_clearly_above(cache: Path, name: str, settings: dict[str, str]) -> None:
    mean, error = accuracy(cache, name, settings)
    assert mean - 5 * error > CHANCE + 0.1


def test_hausdorff_without_positions_is_at_chance_too(cache: Path) -> None:
    """Set matching is blind to order: what HyRSM knows of it comes from the position codes."""
    mean, error = accuracy(cache, "hyrsm", {"position_b": "0"})
    assert abs(mean - CHANCE) < 5 * error + 0.03
