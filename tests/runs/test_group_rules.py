"""Runs under rules about groups: rules are recorded, training follows them, and runs of other rules are not paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

import fsmm
from fsmm.episodes.draw import query_room
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.heads.settings import Recipe
from fsmm.machine.digests import SUMS
from fsmm.runs.banks import Banks
from fsmm.runs.job import Place
from fsmm.runs.spec import RunSpec
from fsmm.runs.tasks import training_protocol, validation_protocol
from fsmm.studies.compare import compare


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_cache(tmp_path_factory.mktemp("c"), classes=18, clips=24, groups=6)


def evaluate(cache: Path, out: Path, method: str = "protonet", **rule: Any) -> Any:
    protocol = Protocol(n_query=4, **rule)
    settings = {"train.steps": "2", "train.evaluate_every": "1", "train.evaluate_episodes": "5"}
    return fsmm.episode_eval(
        method,
        cache=cache,
        protocol=protocol,
        episodes=60,
        out=out,
        settings=settings if method == "relation" else None,
    )


RULES: list[dict[str, Any]] = [
    {"shared_group": False},
    {"support_groups": ("p0", "p1")},
    {"support_group_share": 0.5},
]


@pytest.mark.parametrize("rule", RULES)
def test_a_run_records_its_rule_and_training_follows_it(
    cache: Path, tmp_path: Path, rule: dict[str, Any]
) -> None:
    run = evaluate(cache, tmp_path / "run", "relation", **rule)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    protocol = stored["protocol"]
    assert {key: tuple(v) if isinstance(v := protocol[key], list) else v for key in rule} == rule
    assert "group" in run.metrics["protocol_text"]
    assert run.training is not None
    assert run.metrics["ci95_clips"] is None, "the interval was derived for draws without such rules"


def test_runs_under_other_rules_are_not_paired(cache: Path, tmp_path: Path) -> None:
    evaluate(cache, tmp_path / "plain")
    evaluate(cache, tmp_path / "apart", shared_group=False)
    evaluate(cache, tmp_path / "again", shared_group=False)
    with pytest.raises(UsageError, match="shared_group is True and False"):
        compare([tmp_path / "plain", tmp_path / "apart"])
    assert compare([tmp_path / "apart", tmp_path / "again"]).episodes == 60


def test_runs_from_before_the_rules_are_paired_with_runs_without(cache: Path, tmp_path: Path) -> None:
    for name in ("before", "now"):
        evaluate(cache, tmp_path / name)
    path = tmp_path / "before" / "config.json"
    config = json.loads(path.read_text())
    for key in ("shared_group", "support_groups", "query_groups", "support_group_share"):
        del config["protocol"][key]
    path.write_text(json.dumps(config))
    (tmp_path / "before" / SUMS).unlink()
    assert compare([tmp_path / "before", tmp_path / "now"]).episodes == 60


@pytest.mark.parametrize("rule", RULES)
def test_training_and_validation_ask_for_no_more_queries_than_the_rule_leaves(
    cache: Path, rule: dict[str, Any]
) -> None:
    protocol = Protocol(k_shot=1, n_query=15, **rule)
    banks = Banks(RunSpec(method="protonet", protocol=Protocol()), Place(cache=cache))
    task = training_protocol(protocol, Recipe(query=40), banks.base, seed=0)
    assert task.n_query <= query_room(banks.base, protocol, 1).min() < 23
    assert banks.val is not None
    check = validation_protocol(protocol, banks.val)
    assert check.n_query <= 15
    assert check.shared_group == protocol.shared_group


def test_a_run_that_keeps_groups_apart_says_what_leakage_is_worth(cache: Path, tmp_path: Path) -> None:
    run = evaluate(cache, tmp_path / "apart", shared_group=False)
    found = json.loads((tmp_path / "apart" / "metrics.json").read_text())["leakage"]
    # Its own side is measured on the same episodes as the run.
    assert found["apart"] == pytest.approx(run.mean, abs=1e-6)
    assert found["difference"] == pytest.approx(found["shared"] - found["apart"])
    assert "leakage" not in evaluate(cache, tmp_path / "shared").metrics
