"""The order certificate: where order is all it says so, else it does not; its changes and refusals."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from temporal_support import cut, episode, order_cache

from fsmm.cache.table import Stream
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.job import Job, Place
from fsmm.runs.spec import RunSpec
from fsmm.studies.order_certificate import CHANGES, backwards, middle, order_certificate, rows_of, sorted_by


def job(tmp_path: Path, method: str) -> Job:
    spec = RunSpec(method=method, protocol=Protocol(n_way=5, k_shot=1, n_query=4))
    place = Place(cache=order_cache(tmp_path), dataset="order", device="cpu", out=tmp_path / "run")
    return Job(spec=spec, place=place, episodes=100)


def test_classes_that_differ_in_order_alone_need_it(tmp_path: Path) -> None:
    found = order_certificate(job(tmp_path, "otam"))
    *classes, all_of_them = found.rows
    assert len(classes) == 6
    assert all_of_them.needs_order
    assert all_of_them.accuracy["in order"] > 0.5
    for change in ("shuffled", "single step"):
        assert all_of_them.accuracy[change] < 0.45
    assert sum(row.needs_order for row in classes) >= 5
    order = [row.loss["shuffled"] for row in classes]
    assert order == sorted(order, reverse=True)
    assert (found.class_split, found.streams, found.task) == (
        "default",
        ["frame/net"],
        "5-way 1-shot; 4 queries a class",
    )
    text = (tmp_path / "run" / "order.json").read_text()
    assert json.loads(text) == found.to_dict()
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert (tmp_path / "run" / "order.json.sha256").read_text() == f"{digest}  order.json\n"


def test_a_matching_that_is_blind_to_order_loses_nothing(tmp_path: Path) -> None:
    blind = job(tmp_path, "chamfer")
    blind = replace(blind, spec=replace(blind.spec, settings={"matching": "chamfer"}))
    found = order_certificate(blind)
    for row in found.rows:
        assert row.loss["shuffled"] == row.loss["reversed"] == 0.0
        assert not row.needs_order


def test_a_method_that_does_not_read_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="order"):
        order_certificate(job(tmp_path, "protonet"))


def test_changes_keep_to_a_clips_own_steps() -> None:
    clips = episode().query["frame"]
    there_and_back = backwards(backwards(clips))
    assert torch.equal(there_and_back.x, clips.x)
    garbage = cut(episode(), "query").query["frame"]
    for change in (backwards, middle, lambda s: sorted_by(s, torch.rand(s.x.shape[:-1]))):
        torch.manual_seed(0)
        plain = change(clips)
        torch.manual_seed(0)
        other = change(garbage)
        mask = plain.mask()[..., None]
        assert torch.equal(plain.x * mask, other.x * mask)
    x = torch.arange(4.0)[:, None]
    clip = Stream(x, torch.tensor(True), torch.tensor(3))
    assert backwards(clip).x.flatten().tolist() == [2.0, 1.0, 0.0, 3.0]
    assert middle(clip).x.flatten().tolist() == [1.0]


def test_intervals_are_paired_over_clips() -> None:
    """Two clips that each lose the same share have no spread, however far apart they are."""
    right = np.array([[10, 6], [5, 1], [10, 6], [0, 0]])
    (row, every) = rows_of(right, np.array([10, 10]), np.array([0, 0]), ["run"])
    assert row.loss["shuffled"] == pytest.approx(0.5)
    assert row.interval["shuffled"] == pytest.approx(0.0)
    assert row.needs_order
    assert every.interval["shuffled"] is None
    assert list(row.accuracy) == list(CHANGES)
