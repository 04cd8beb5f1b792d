"""Rows under other keys are the same rows, and rows that go take nothing else with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.rewrite import rewrite_stream
from fsmm.cache.schema import Provenance, StreamName, shard_paths
from fsmm.cache.shard import read_shard
from fsmm.cache.stream import StreamWriter, stream_keys
from fsmm.errors import CacheError

STREAM = StreamName("frame", "net")
IDS = [f"c{i}" for i in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven clips in three shards; clip 2 has no frames."""
    with StreamWriter(tmp_path, Provenance("net", "frame", 2, dtype="float32"), max_clips=3) as writer:
        for i, clip in enumerate(IDS):
            x = None if i == 2 else np.full((i + 1, 2), i)
            writer.add(clip, x, {"sha256": f"{i:064d}", "duration": float(i)})
    return tmp_path


def rows(folder: Path) -> dict[str, tuple[list[float], float]]:
    """From key to the first column of its features and its duration; every row's checksum is right."""
    found = {}
    for path in shard_paths(folder, STREAM):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            assert shard.is_right(i)
            found[key] = shard.clip(i)[:, 0].tolist(), float(shard.facts["duration"][i])
    return found


def test_rows_are_renamed_and_dropped(folder: Path) -> None:
    before = rows(folder)
    untouched = shard_paths(folder, STREAM)[1].read_bytes()
    new = {"c0": "moved", "c1": None, "c2": "absent"}
    assert rewrite_stream(folder, STREAM, lambda key, digest: new.get(key, key)) == 3
    kept = {
        ("moved" if key == "c0" else "absent" if key == "c2" else key): row for key, row in before.items()
    }
    del kept["c1"]
    assert rows(folder) == kept
    assert stream_keys(folder, STREAM)["absent"] is False
    assert shard_paths(folder, STREAM)[1].read_bytes() == untouched


def test_keys_are_chosen_by_the_digest(folder: Path) -> None:
    before = rows(folder)
    swap = {("c0", f"{0:064d}"): "c5", ("c5", f"{5:064d}"): "c0"}
    rewrite_stream(folder, STREAM, lambda key, digest: swap.get((key, digest), key))
    after = rows(folder)
    assert (after["c0"], after["c5"]) == (before["c5"], before["c0"])


def test_a_key_that_is_there_already_stays_what_it_is(folder: Path) -> None:
    before = rows(folder)
    rewrite_stream(folder, STREAM, lambda key, digest: "c6" if key == "c0" else key)
    assert rows(folder) == {key: row for key, row in before.items() if key != "c0"}


def test_a_shard_without_rows_is_deleted_and_nothing_is_no_work(folder: Path) -> None:
    assert rewrite_stream(folder, STREAM, lambda key, digest: key) == 0
    rewrite_stream(folder, STREAM, lambda key, digest: None if key in IDS[:3] else key)
    assert [path.name for path in shard_paths(folder, STREAM)] == ["00001.h5", "00002.h5"]
    assert rewrite_stream(folder, StreamName("audio", "net"), lambda key, digest: None) == 0


def test_a_stream_that_is_being_written_is_left_alone(folder: Path) -> None:
    before = rows(folder)
    with (
        StreamWriter(folder, Provenance("net", "frame", 2, dtype="float32")),
        pytest.raises(CacheError, match="Another process is writing"),
    ):
        rewrite_stream(folder, STREAM, lambda key, digest: None)
    assert rows(folder) == before
