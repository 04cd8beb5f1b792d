"""The order certificate: where order is all it says so, else it does not; its changes and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from temporal_support import cut, episode, order_cache

from fsmm.cache.table import Stream
from fsmm.episodes.protocol import Protocol
from fsmm.errors import UsageError
from fsmm.runs.job import Job, Place
from fsmm.runs.order_certificate import CHANGES, backwards, middle, rows_of, sorted_by
from fsmm.runs.run import Run, run
from fsmm.runs.spec import RunSpec
from fsmm.studies.grid.sweep import sweep
from fsmm.studies.report.order import order_section


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return order_cache(tmp_path_factory.mktemp("cache"))


def job(cache: Path, out: Path, method: str) -> Job:
    spec = RunSpec(method=method, protocol=Protocol(n_way=5, k_shot=1, n_query=4))
    place = Place(cache=cache, dataset="order", device="cpu", out=out)
    return Job(spec=spec, place=place, episodes=100, order_certificate=True)


def certificate(found: Run) -> list[SimpleNamespace]:
    """The rows of a run's certificate."""
    assert found.metrics["order_certificate"]["episodes"] == 100
    return [SimpleNamespace(**row) for row in found.metrics["order_certificate"]["rows"]]


def test_classes_that_differ_in_order_alone_need_it(cache: Path, tmp_path: Path) -> None:
    found = run(job(cache, tmp_path / "run", "otam"))
    *classes, all_of_them = certificate(found)
    assert len(classes) == 6
    assert all_of_them.needs_order
    assert all_of_them.accuracy["in order"] > 0.5
    for change in ("shuffled", "single step"):
        assert all_of_them.accuracy[change] < 0.45
    assert sum(row.needs_order for row in classes) >= 5
    order = [row.loss["shuffled"] for row in classes]
    assert order == sorted(order, reverse=True)
    stored = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert stored["order_certificate"] == found.metrics["order_certificate"]
    plain = run(replace(job(cache, tmp_path / "run", "otam"), order_certificate=False))
    assert plain.mean == found.mean
    per_class = {row.name: row.accuracy["in order"] for row in classes}
    for name, accuracy in per_class.items():  # Means over clips, and over queries.
        assert accuracy == pytest.approx(plain.metrics["per_class"][name], abs=0.05)


def test_a_study_holds_certificates_and_a_report_shows_them(cache: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    text = "name: s\nfixed: {dataset: order, n_query: 4, episodes: 100}\nblocks:\n  - name: b\n"
    text += "    grid: {method: [METHODS]}\n"
    asked = text.replace("n_query", "order_certificate: true, n_query")
    study.write_text(asked.replace("METHODS", "otam"))
    held = sweep(study, cache, out=tmp_path / "out", jobs=1)
    (row,) = held.done
    by_itself = run(job(cache, tmp_path / "run", "otam")).metrics["order_certificate"]
    assert held.metrics(row)["order_certificate"] == by_itself
    study.write_text(text.replace("METHODS", "otam, protonet"))
    without = sweep(study, cache, out=tmp_path / "out", jobs=1)
    assert len({row.key, *(each.key for each in without.done)}) == 3, "a certificate is another run"
    study.write_text(asked.replace("METHODS", "otam, protonet"))
    with pytest.raises(UsageError, match=r"study\.yaml, line \d: Method 'protonet' does not read the order"):
        sweep(study, cache, out=tmp_path / "out", jobs=1)
    shown = SimpleNamespace(name="run", metrics=held.metrics(row))
    plain = SimpleNamespace(name="plain", metrics={})
    section = order_section(SimpleNamespace(runs=[plain, shown]))
    assert section is not None
    (table,) = section.tables
    first = by_itself["rows"][0]
    assert table.rows[0][:2] == (first["name"], f"{100 * first['accuracy']['in order']:.1f}")
    assert table.rows[-1][0] == "all classes"
    assert order_section(SimpleNamespace(runs=[plain])) is None


def test_a_matching_that_is_blind_to_order_loses_nothing(cache: Path, tmp_path: Path) -> None:
    blind = job(cache, tmp_path / "run", "chamfer")
    blind = replace(blind, spec=replace(blind.spec, settings={"matching": "chamfer"}))
    for row in certificate(run(blind)):
        assert row.loss["shuffled"] == row.loss["reversed"] == 0.0
        assert not row.needs_order


def test_what_has_no_certificate_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not read the order of steps"):
        job(cache, tmp_path / "run", "protonet")
    asked = job(cache, tmp_path / "run", "otam")
    with pytest.raises(UsageError, match="leave it out where they come from a file"):
        replace(asked, episodes_file=tmp_path / "episodes.json")
    protocol = replace(asked.spec.protocol, unlabelled=3)
    with pytest.raises(UsageError, match="needs episodes with one label a clip"):
        run(replace(asked, spec=replace(asked.spec, protocol=protocol)))


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
