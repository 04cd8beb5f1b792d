"""What `fsmm cache rm` removes, and what stays as it was."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import synthetic_cache

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import (
    SCHEMA_VERSION,
    StreamName,
    list_datasets,
    list_streams,
    shard_paths,
    stream_folder,
)
from fsmm.cache.stream import lock_stream, stream_keys
from fsmm.cache.upkeep import remove
from fsmm.cache.upkeep.remove import plan_clips, plan_dataset, plan_runs, plan_streams
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError, FsmmError, UsageError

FRAME, AUDIO = StreamName("frame", "net"), StreamName("audio", "net")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two data sets of 6 classes of 20 clips, so that a stream has several shards; one has runs and failures."""
    root = tmp_path / "cache"
    for dataset in ("toy", "other"):
        synthetic_cache(root, dataset=dataset, classes=6, clips=20)
    lines = [{"id": f"clip{i}", "stream": stream} for i in (0, 1) for stream in ("frame/net", "")]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "torn\n"
    (root / "toy" / "failures.jsonl").write_text(text)
    for run in ("protonet-1", "relation-2/seed-0", "relation-2/seed-1"):
        (root / "toy" / "runs" / run).mkdir(parents=True)
        (root / "toy" / "runs" / run / "metrics.json").write_text("{}")
    return root


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def files(path: Path) -> dict[str, bytes]:
    """The contents of all files but locks, by path."""
    found = (file for file in path.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file.relative_to(path)): file.read_bytes() for file in found if file.name != ".lock"}


def is_tidy(cache: Path) -> bool:
    """Whether nothing is left of a removal, and what is there is whole."""
    return not [*cache.glob(".*"), *cache.rglob(".*.tmp")] and verify(cache).ok


def test_a_data_set_goes_with_its_runs_and_the_other_stays(cache: Path) -> None:
    before, other = size(cache / "toy"), files(cache / "other")
    removal = plan_dataset(cache, "toy")
    assert removal.what == "data set toy with 3 streams and 3 runs"
    assert (removal.bytes, list_datasets(cache)) == (before, ["other", "toy"]), "a plan removes nothing"
    assert removal.carry_out() == before
    assert list_datasets(cache) == ["other"]
    assert files(cache / "other") == other
    assert is_tidy(cache)
    with pytest.raises(CacheError, match="not in the cache"):
        plan_dataset(cache, "toy")


@pytest.mark.parametrize("lost", ["catalog.h5", "streams"])
def test_a_damaged_data_set_can_be_removed(cache: Path, lost: str) -> None:
    path = cache / "toy" / lost
    (shutil.rmtree if path.is_dir() else os.unlink)(path)
    plan_dataset(cache, "toy").carry_out()
    assert not (cache / "toy").exists()


@pytest.mark.parametrize("name", ["..", ".", "toy/../other", "/etc", ""])
def test_a_name_cannot_lead_out_of_the_cache(cache: Path, name: str) -> None:
    with pytest.raises(FsmmError):
        plan_dataset(cache, name)
    assert list_datasets(cache) == ["other", "toy"]


def test_links_are_not_followed(cache: Path, tmp_path: Path) -> None:
    shutil.move(cache / "toy", tmp_path / "elsewhere")
    (cache / "toy").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError, match="is a link"):
        plan_dataset(cache, "toy")
    assert (tmp_path / "elsewhere" / "catalog.h5").exists()


def test_streams_go_with_their_failures_and_the_rest_stays(cache: Path) -> None:
    held = files(cache / "toy")
    removal = plan_streams(cache, "toy", ["frame/net", "frame/net"])
    freed = removal.carry_out()
    assert list_streams(cache / "toy") == [AUDIO, StreamName("word", "toy")]
    gone = {name for name in held if name.startswith("streams/frame")}
    left = files(cache / "toy")
    assert left.keys() == held.keys() - gone
    assert all(left[name] == held[name] for name in left if name != "failures.jsonl")
    assert left["failures.jsonl"].decode().count("frame/net") == 0
    assert left["failures.jsonl"].decode().splitlines()[-1] == "torn", "lines that cannot be read stay"
    lines = len(held["failures.jsonl"]) - len(left["failures.jsonl"])
    assert freed == removal.bytes + lines
    assert not (cache / "toy" / "streams" / "frame").exists()
    assert is_tidy(cache)
    with pytest.raises(UsageError, match="Unknown stream 'frame/net'"):
        plan_streams(cache, "toy", ["audio/net", "frame/net"])


def test_clips_go_from_the_catalog_and_every_stream(cache: Path) -> None:
    gone = ["clip0", "clip1", "clip119", *(f"clip{i}" for i in range(40, 60))]
    before = FeatureBank.load(cache, dataset="toy", split="all")
    freed = plan_clips(cache, "toy", gone).carry_out()
    catalog = Catalog.read(cache / "toy")
    assert not set(gone) & set(catalog.clip_id)
    assert len(catalog) == 120 - len(gone)
    assert freed > 0
    for stream in (FRAME, AUDIO):
        assert set(stream_keys(cache / "toy", stream)) == set(catalog.clip_id)
    assert (cache / "toy" / "failures.jsonl").read_text() == "torn\n"
    after = FeatureBank.load(cache, dataset="toy", split="all")
    kept = np.array([i for i in range(120) if f"clip{i}" not in gone])
    for modality, table in after.tables.items():
        assert torch.equal(table.x, before.tables[modality].x[kept])
    assert torch.equal(after.label, before.label[kept])
    assert is_tidy(cache)


def test_a_removal_of_clips_that_was_cut_short_is_finished_by_the_next(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(remove, "rewrite_stream", cut_short)
        with pytest.raises(KeyboardInterrupt):
            plan_clips(cache, "toy", ["clip7"]).carry_out()
    assert "clip7" not in Catalog.read(cache / "toy").clip_id, "it takes part in nothing any more"
    assert "clip7" in stream_keys(cache / "toy", FRAME)
    plan_clips(cache, "toy", ["clip7"]).carry_out()
    assert "clip7" not in stream_keys(cache / "toy", FRAME)
    with pytest.raises(UsageError, match="Unknown clip 'clip7'"):
        plan_clips(cache, "toy", ["clip7"])


def test_a_data_set_of_an_older_schema_is_changed_in_nothing_but_may_go_as_a_whole(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fsmm.cache.locking.OLDER_SCHEMAS", (SCHEMA_VERSION,))
    for plan in (
        lambda: plan_clips(cache, "toy", ["clip3"]),
        lambda: plan_streams(cache, "toy", ["frame/net"]),
    ):
        with pytest.raises(CacheError, match="fsmm cache upgrade"):
            plan()
    plan_dataset(cache, "toy").carry_out()
    assert list_datasets(cache) == ["other"]


def test_no_clip_left_and_unknown_clips_are_refused(cache: Path) -> None:
    held = files(cache / "toy")
    with pytest.raises(UsageError, match="No clip would be left"):
        plan_clips(cache, "toy", [f"clip{i}" for i in range(120)])
    with pytest.raises(UsageError, match=r"Unknown clip 'clop1'\. Did you mean 'clip1'"):
        plan_clips(cache, "toy", ["clip2", "clop1"])
    assert files(cache / "toy") == held


def test_all_runs_go_or_some(cache: Path) -> None:
    runs = cache / "toy" / "runs"
    assert plan_runs(cache, "toy", [runs / "relation-2"]).what == "run relation-2"
    plan_runs(cache, "toy", [runs / "relation-2"]).carry_out()
    assert sorted(os.listdir(runs)) == ["protonet-1"]
    with pytest.raises(UsageError, match="is no run of data set"):
        plan_runs(cache, "toy", [cache / "other"])
    removal = plan_runs(cache, "toy")
    assert (removal.what, removal.carry_out()) == ("all runs (1)", 2)
    assert not runs.exists()
    with pytest.raises(CacheError, match="has no runs"):
        plan_runs(cache, "toy")
    assert is_tidy(cache)


@pytest.mark.parametrize("kind", ["dataset", "stream", "clips"])
def test_nothing_is_removed_while_another_process_writes(cache: Path, kind: str) -> None:
    removal = {
        "dataset": lambda: plan_dataset(cache, "toy"),
        "stream": lambda: plan_streams(cache, "toy", ["frame/net"]),
        "clips": lambda: plan_clips(cache, "toy", ["clip3"]),
    }[kind]()
    held = files(cache)
    handle = lock_stream(stream_folder(cache / "toy", FRAME), FRAME)
    try:
        with pytest.raises(CacheError, match="Another process is writing"):
            removal.carry_out()
    finally:
        os.close(handle)
    assert files(cache) == held


def test_what_a_killed_removal_left_is_deleted_later(cache: Path) -> None:
    left = cache / ".removed-1-abc"
    shutil.copytree(cache / "other", left / "0")
    assert list_datasets(cache) == ["other", "toy"], "it is no data set any more"
    os.utime(left, (0, 0))
    plan_streams(cache, "toy", ["audio/net"]).carry_out()
    assert not left.exists()
    assert len(shard_paths(cache / "toy", FRAME)) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_changed_is_one_sentence(cache: Path) -> None:
    removal = plan_dataset(cache, "toy")
    cache.chmod(0o500)
    try:
        with pytest.raises(CacheError, match="could not be removed"):
            removal.carry_out()
    finally:
        cache.chmod(0o700)
    assert verify(cache, "toy").ok
