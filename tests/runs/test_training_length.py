"""How long a training is: as long as accuracy on val classes rises, up to a ceiling, and the run says which it was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests_support import bank_of, synthetic_cache
from torch import Tensor, nn

from fsmm.cache.bank import FeatureBank
from fsmm.episodes.batch import Episodes
from fsmm.episodes.protocol import Protocol
from fsmm.heads.head import Head, Inputs, Losses
from fsmm.heads.settings import Recipe, Settings
from fsmm.runs.run import episode_eval
from fsmm.runs.train import Training, train

TASK = Protocol(n_way=2, k_shot=1, n_query=4)
INPUTS = Inputs(streams={"frame": (1, 3)}, way=2)


@dataclass(frozen=True)
class RisingSettings(Settings):
    """Where accuracy stops to rise."""

    until: int = 0
    """The number of steps after which accuracy no longer rises."""


class Rising(Head[RisingSettings]):
    """A head whose only weight counts its steps, and whose share of right answers is that count over a thousand.

    It reads the labels of the queries, since nothing but its accuracy matters here.
    """

    Settings = RisingSettings

    def __init__(self, inputs: Inputs, settings: RisingSettings) -> None:
        super().__init__(inputs, settings)
        self.count = nn.Parameter(torch.zeros(()))

    def forward(self, episodes: Episodes) -> Tensor:
        label = episodes.query_label
        share = min(float(self.count), self.settings.until) / 1000
        answer = torch.where(_place(label) < share, label, 1 - label)
        return nn.functional.one_hot(answer, 2).float()

    def loss(self, episodes: Episodes) -> Losses:
        return Losses(-self.count)


def _place(label: Tensor) -> Tensor:
    """A number in (0, 1) for each query, spread evenly over the batch and the same at every call."""
    return (torch.arange(label.numel()).view(label.shape) * 0.6180339887) % 1


def bank(split: str) -> FeatureBank:
    label = torch.arange(3).repeat_interleave(8)
    return bank_of(torch.randn(24, 3, generator=torch.Generator().manual_seed(1)), label, split=split)


def recipe(**given: Any) -> Recipe:
    """A recipe of 100 steps, evaluated every ten, with the patience of three evaluations."""
    values = {
        "steps": 100,
        "tasks": 1,
        "query": 2,
        "optimiser": "sgd",
        "rate": 1.0,
        "momentum": 0.0,
        "evaluate_every": 10,
        "evaluate_episodes": 100,
        "patience": 3,
    }
    return Recipe(**{**values, **given})


def trained(until: int, *, val: bool = True, folder: Path | None = None, **given: Any) -> Training:
    """The record of a training by ``recipe(**given)`` of a head that rises until a given step."""
    return train(
        head=Rising(INPUTS, RisingSettings(until=until)),
        base=bank("base"),
        val=bank("val") if val else None,
        protocol=TASK,
        recipe=recipe(**given),
        folder=folder,
    )


def test_it_goes_on_past_the_recipe_while_val_accuracy_rises() -> None:
    found = trained(until=200)
    assert found.best_step == 200
    assert found.steps == 200 + 3 * 10
    assert "val accuracy stopped rising" in found.stopped
    assert "step 200" in found.stopped
    assert "step 230" in found.stopped


def test_it_ends_early_where_val_accuracy_does_not_rise() -> None:
    found = trained(until=0)
    assert (found.best_step, found.steps) == (0, 30)
    assert "val accuracy stopped rising" in found.stopped


@pytest.mark.parametrize("ceiling", [1, 2, 4])
def test_it_ends_at_its_ceiling_and_says_that_accuracy_still_rose(ceiling: int) -> None:
    found = trained(until=1000, ceiling=ceiling)
    assert found.steps == found.best_step == 100 * ceiling
    assert found.stopped.startswith(f"ceiling of {100 * ceiling} steps reached, val accuracy still rising")


def test_without_val_classes_the_recipe_is_all_there_is() -> None:
    found = trained(until=1000, val=False)
    assert found.steps == 100
    assert "no val classes" in found.stopped


def test_minutes_cut_it_at_the_next_step_and_it_says_so() -> None:
    found = trained(until=1000, minutes=1e-9)
    assert found.steps == 1
    assert found.stopped.startswith("cut at step 1 after 1e-09 minutes")
    assert len(found.curve) == 2, "the state at the cut is a candidate, too"


def test_no_steps_leave_the_head_as_it_began() -> None:
    found = trained(until=1000, steps=0)
    assert found.steps == 0
    assert "not trained" in found.stopped


def test_an_interruption_past_the_recipe_changes_nothing(tmp_path: Path) -> None:
    straight = trained(until=180)

    class Stop(Exception):
        pass

    def stop(step: int, *_: object) -> None:
        if step == 153:
            raise Stop

    head = Rising(INPUTS, RisingSettings(until=180))
    with pytest.raises(Stop):
        train(head, bank("base"), bank("val"), TASK, recipe(), folder=tmp_path, progress=stop)
    resumed = trained(until=180, folder=tmp_path)
    assert (resumed.steps, resumed.best_step) == (straight.steps, straight.best_step)
    assert resumed.stopped == straight.stopped


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), streams={"frame/net": (1, 8)})


BRIEF = {
    "train.tasks": "1",
    "train.evaluate_every": "2",
    "train.evaluate_episodes": "10",
    "train.patience": "100",
}


def test_a_given_number_of_steps_is_taken_and_no_more(cache: Path, tmp_path: Path) -> None:
    task = Protocol(n_query=4)
    for name, given, steps in (("a", {}, 4), ("b", {"train.ceiling": "3"}, 12)):
        settings = {**BRIEF, "train.steps": "4", **given}
        run = episode_eval(
            "relation", "toy", cache, protocol=task, episodes=5, settings=settings, out=tmp_path / name
        )
        assert run.training is not None
        assert run.training.steps == steps
        assert run.metrics["training_stopped"] == run.training.stopped != ""


def test_a_kept_head_still_says_when_and_why_its_training_stopped(cache: Path, tmp_path: Path) -> None:
    settings = {**BRIEF, "train.steps": "4"}
    runs = [
        episode_eval(
            "relation",
            "toy",
            cache,
            protocol=Protocol(n_query=4),
            episodes=5,
            settings=settings,
            out=tmp_path,
        )
        for _ in range(2)
    ]
    assert runs[0].training is not None
    assert runs[1].training is None
    assert runs[0].metrics["training_stopped"] == runs[1].metrics["training_stopped"] != ""
    assert np.array_equal(runs[0].accuracy, runs[1].accuracy)
