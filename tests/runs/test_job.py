"""Specifications and jobs as values: what they store, and the names of their folders."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from fsmm.episodes.protocol import Missing, Protocol
from fsmm.errors import UsageError
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec

SPEC = RunSpec(method="protonet", protocol=Protocol(n_query=4, label_set="event"))


def test_the_digest_of_a_specification_is_the_one_that_names_the_folders_of_older_runs() -> None:
    assert SPEC.digest() == "8aba736cd1"


def test_a_trained_head_depends_on_neither_the_test_split_nor_its_sampling() -> None:
    other = replace(SPEC, protocol=replace(SPEC.protocol, split="val", seed=3, n_query=9, clip_split="test"))
    assert other.training_identity() == SPEC.training_identity()
    assert replace(SPEC, train_seed=1).training_identity() != SPEC.training_identity()
    lossy = replace(SPEC, train_missing=(Missing("audio", 0.5),))
    assert lossy.training_identity() != SPEC.training_identity()


def test_a_method_is_looked_up_once_and_an_unknown_one_is_refused() -> None:
    assert SPEC.resolved is SPEC.resolved
    assert replace(SPEC, method="protonet-lf").resolved == SPEC.resolved
    with pytest.raises(UsageError, match="Did you mean 'protonet'"):
        _ = replace(SPEC, method="protonett").resolved


def test_a_job_is_a_value() -> None:
    job = Job(spec=SPEC, place=Place(dataset="toy"))
    assert job == Job(spec=SPEC, place=Place(dataset="toy"))
    with pytest.raises(FrozenInstanceError):
        job.episodes = 3
    with pytest.raises(TypeError):
        Job(SPEC)
    with pytest.raises(UsageError, match="at least 1"):
        Job(spec=SPEC, episodes=0)


def test_a_job_stores_the_request_but_not_its_folder(tmp_path: Path) -> None:
    values = Job(spec=SPEC, place=Place(cache=Path("somewhere"), out=tmp_path), retrain=True).to_dict()
    assert json.loads(json.dumps(values)) == json.loads(json.dumps(values, default=str)), "plain JSON values"
    assert values["cache"] == str(Path.cwd() / "somewhere"), "another working directory finds it again"
    assert not {"out", "retrain", "place", "spec"} & values.keys()
    assert "cache" not in Job(spec=SPEC).to_dict(), "the default is left to the machine"
