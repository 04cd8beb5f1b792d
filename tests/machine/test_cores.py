"""How many cores training asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from fsmm.heads.build import build_head
from fsmm.heads.head import Inputs
from fsmm.machine.cores import half_of_the_cores

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def asked(name: str, modalities: tuple[str, ...] = ("frame",), device: torch.device = CPU) -> int:
    head = build_head(name, Inputs(streams=dict.fromkeys(modalities, (4, 16)), way=5, shot=1))
    with half_of_the_cores(unless=device.type != "cpu" or head.recipe.every_core):
        return torch.get_num_threads()


@pytest.mark.parametrize(
    ("name", "threads"),
    [("matching-fce", 2), ("egnn", 2), ("trx", 4), ("strm", 4), ("hyrsm", 4), ("hyrsmpp", 4)],
)
def test_half_of_the_cores_but_for_heads_of_large_operations(name: str, threads: int) -> None:
    assert asked(name) == threads
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("name", ["trx-ec", "trx-ea", "trx-lf"])
def test_a_fusion_asks_for_what_its_head_asks(name: str) -> None:
    assert asked(name, ("frame", "audio")) == 4
    assert asked(name.replace("trx", "relation"), ("frame", "audio")) == 2


def test_one_core_is_never_halved_to_none() -> None:
    torch.set_num_threads(1)
    assert asked("egnn") == 1


def test_what_the_user_sets_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert asked("egnn") == 4


def test_the_cpu_threads_of_a_training_elsewhere_are_left_alone() -> None:
    assert asked("egnn", device=torch.device("meta")) == 4
