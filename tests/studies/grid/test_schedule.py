"""A study's cost is estimated from a few measured kinds of task, of which each method has one at least."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.machine.forked_jobs import ForkedJobs
from fsmm.runs.job import Place
from fsmm.runs.shared import SharedBanks
from fsmm.studies.grid import schedule
from fsmm.studies.grid.cost import Cost, Kind, measured
from fsmm.studies.grid.data import DataFacts
from fsmm.studies.grid.expand import expand
from fsmm.studies.grid.identity import head_name
from fsmm.studies.grid.schedule import Costs, costs_of, estimate, keep_costs, with_costs
from fsmm.studies.grid.spec import checked
from fsmm.studies.grid.work import Loader, Task


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("cache"), clips=8)


def tasks(cache: Path, **block: Any) -> list[Task]:
    document = checked({"name": "toy", "blocks": [{"name": "b", **block}]}, where="toy.yaml")
    facts = DataFacts(cache, None)
    runs = expand(document, lambda name: facts, Place(cache=cache, device="cpu"), {})
    return [
        Task(key=str(i), job=run.job, trained_as=run.trained_as, head=head_name(run.trained_as, facts))
        for i, run in enumerate(runs)
    ]


def kinds(found: list[Task]) -> int:
    return len({Kind.of(task) for task in found})


def test_what_changes_the_shapes_or_the_work_is_another_kind_and_nothing_else(cache: Path) -> None:
    task = {"method": "protonet", "n_query": 3}
    assert kinds(tasks(cache, fixed=task, grid={"seed": [0, 1], "class_split": ["default"]})) == 1
    assert kinds(tasks(cache, fixed=task, grid={"missing": ["audio=0.5@query", "audio=0.7@query"]})) == 1
    assert kinds(tasks(cache, fixed=task, grid={"k_shot": [1, 2], "modalities": ["each"]})) == 4
    head = {"method": "tim", "n_query": 3}
    assert kinds(tasks(cache, fixed=head, grid={"settings.temperature": ["7.5", "15.5"]})) == 1
    assert kinds(tasks(cache, fixed=head, grid={"settings.iterations": ["10", "1000"]})) == 2
    found = tasks(cache, fixed={"method": "relation"}, grid={"train.steps": [5, 500]})
    assert kinds(found) == 1, "steps are counted and not measured"
    cost = replace(COST, step=0.5, steps=1000, evaluate_every=100, evaluate_episodes=10, episode=0.01)
    seconds = [cost.seconds(replace(task, trains=True)) for task in found]
    assert seconds == pytest.approx([0.1 + 5 * 0.5 + 10 * 0.01, 0.1 + 500 * 0.5 + 6 * 10 * 0.01])


COST = Cost(family="f", data="d", size=100, start=0.1, episode=0.002, memory_mb=10)


def test_a_kind_that_was_not_measured_is_scaled_from_the_nearest_of_its_family() -> None:
    costs = Costs(
        {"a": COST, "b": replace(COST, size=1000, episode=0.05), "c": replace(COST, data="e", episode=9)}
    )
    assert costs.of(Kind(name="a", family="f", data="d", size=100)) == COST
    assert costs.of(Kind(name="x", family="f", data="d", size=200)).episode == pytest.approx(0.004)
    assert costs.of(Kind(name="x", family="f", data="d", size=900)).episode == pytest.approx(0.045)
    assert costs.of(Kind(name="x", family="f", data="e", size=1000)).episode == pytest.approx(90)
    other = costs.of(Kind(name="x", family="g", data="d", size=100))
    assert other.episode == pytest.approx(0.005), "the median of 0.002, 0.005 and 9, for so many clips"
    assert Costs({}).of(Kind(name="x", family="g", data="d", size=1)) == Cost(family="g", size=1)


def test_other_data_cost_what_methods_say_that_are_measured_on_both() -> None:
    wide = {"data": "wide"}
    costs = Costs(
        {
            "a": replace(COST, step=1.0),
            "b": replace(COST, family="g", episode=0.001, step=0.1),
            "c": replace(COST, family="g", episode=0.008, step=0.3, **wide),
            "d": replace(COST, family="h", episode=0.002, size=50),
            "e": replace(COST, family="h", episode=0.012, **wide),
            "f": replace(COST, family="i", episode=0.001),
            "g": replace(COST, family="i", episode=0.001, **wide),
        }
    )
    found = costs.of(Kind(name="x", family="f", data="wide", size=200))
    assert found.episode == pytest.approx(0.002 * 2 * 3), "eight, three and one times as long, a clip"
    assert found.step == pytest.approx(1.0 * 2 * 3), (
        "the one method that is trained takes three times as long"
    )
    costs.add("h", replace(COST, family="f", episode=0.5, **wide))
    assert costs.of(Kind(name="x", family="f", data="wide", size=100)).episode == pytest.approx(0.5)


Fake = Callable[[Kind, Task, SharedBanks], Cost]


def asked_with(monkeypatch: pytest.MonkeyPatch, answer: Fake) -> list[tuple[str, int]]:
    """The methods and shots that are measured, while ``answer`` stands for the measurement."""
    asked: list[tuple[str, int]] = []

    def fake(kind: Kind, task: Task, shared: SharedBanks) -> Cost:
        asked.append((task.job.spec.method, int(task.job.spec.protocol.k_shot)))
        return answer(kind, task, shared)

    monkeypatch.setattr(schedule, "measured", fake)
    return asked


def test_each_method_is_measured_on_its_largest_task_and_no_more_than_is_worth_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quick(kind: Kind, task: Task, shared: SharedBanks) -> Cost:
        return replace(COST, family=kind.family, data=kind.data, size=kind.size, start=0.0, episode=1e-9)

    asked = asked_with(monkeypatch, quick)
    found = tasks(
        cache,
        fixed={"n_query": 3},
        grid={"method": ["nearest", "protonet"], "k_shot": [1, 2, 3], "seed": [0, 1]},
    )
    costs = costs_of(found, tmp_path, Loader(), pool=ForkedJobs(1, forked=False))
    assert sorted(asked) == [("nearest", 3), ("protonet", 3)]
    assert all(task.seconds > 0 for task in with_costs(found, costs))
    # What a study's folder holds is not measured again.
    keep_costs(tmp_path, costs)
    again = costs_of(found, tmp_path, Loader(), pool=ForkedJobs(1, forked=False))
    assert len(asked) == 2
    assert with_costs(found, again) == with_costs(found, costs)


def test_what_takes_long_is_measured_itself_the_longest_first_until_the_budget_is_spent(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(kind: Kind, task: Task, shared: SharedBanks) -> Cost:
        return replace(COST, family=kind.family, data=kind.data, size=kind.size, episode=1.0)

    asked = asked_with(monkeypatch, slow)
    found = tasks(cache, fixed={"n_query": 3, "method": "protonet"}, grid={"k_shot": [1, 2, 3, 4]})
    costs = costs_of(found, tmp_path, Loader(), pool=ForkedJobs(1, forked=False))
    assert [shots for _, shots in asked] == [4, 3, 2, 1]
    assert estimate(with_costs(found, costs), costs, jobs=2).seconds == pytest.approx(2 * 10_000, rel=0.01)
    asked.clear()
    costs_of(found, tmp_path / "new", Loader(), pool=ForkedJobs(1, forked=False), seconds=-1.0)
    assert asked == []


def test_where_the_largest_task_of_a_method_cannot_be_done_the_next_is_measured(
    cache: Path, tmp_path: Path
) -> None:
    found = tasks(cache, fixed={"n_query": 3, "method": "protonet"}, grid={"k_shot": [1, 500]})
    costs = costs_of(found, tmp_path, Loader(), pool=ForkedJobs(1, forked=False))
    assert list(costs.measured) == [Kind.of(found[0]).name]


def test_a_measurement_has_the_recipe_of_the_head(cache: Path) -> None:
    (task,) = tasks(
        cache, fixed={"method": "relation", "n_query": 3, "train.steps": 7, "modalities": "first"}
    )
    loader = Loader()
    loader.load(task, trains=True)
    cost = measured(Kind.of(task), task, loader.shared)
    assert (cost.steps, cost.evaluate_every) == (600, 50)
    assert cost.step > 0
    assert cost.start > 0


def test_a_training_for_whole_splits_is_measured_and_a_certificate_has_four_more_passes(cache: Path) -> None:
    whole = {"n_way": 0, "k_shot": 0, "modalities": "first", "train.steps": 7}
    (task,) = tasks(cache, fixed={"method": "common-space", **whole})
    loader = Loader()
    loader.load(task, trains=True)
    cost = measured(Kind.of(task), task, loader.shared)
    assert cost.step > 0
    assert cost.seconds(replace(task, trains=True)) == pytest.approx(cost.start + 7 * cost.step)
    (plain,) = tasks(cache, fixed={"method": "otam", "n_query": 3, "modalities": "first", "episodes": 100})
    known = Cost(start=1.0, episode=0.01)
    certified = replace(plain, job=replace(plain.job, order_certificate=True))
    assert [known.seconds(each) for each in (plain, certified)] == [pytest.approx(2.0), pytest.approx(6.0)]
