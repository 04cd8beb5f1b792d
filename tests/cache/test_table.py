"""Tables: on disk and in memory the same, shortened as a slow formula says."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tests_support import flip

from fsmm.cache.schema import Provenance, StreamName
from fsmm.cache.shard import read_shard
from fsmm.cache.stream import StreamWriter
from fsmm.cache.table import MappedTable, Table, TensorTable, load_table, shorten
from fsmm.errors import CacheError, UsageError

STREAM = StreamName("frame", "net")
LENGTHS = [3, 0, 7, 1, 4, 7, 2, 0, 5, 9]  # 0: absent


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, np.ndarray | None]:
    """Ten clips of unequal length over three shards, written in an order of their own."""
    rng = np.random.default_rng(0)
    made = {f"c{i}": rng.normal(size=(t, 5)).astype(np.float32) if t else None for i, t in enumerate(LENGTHS)}
    with StreamWriter(tmp_path, Provenance("net", "frame", 5, dtype="float32"), max_clips=4) as writer:
        for i in (5, 2, 0, 1, 7, 3, 9, 8, 6, 4):
            writer.add(f"c{i}", made[f"c{i}"])
    return made


def both(folder: Path, keys: list[str], max_steps: int = 64) -> tuple[Table, Table]:
    held = load_table(folder, STREAM, keys, max_steps=max_steps)
    mapped = load_table(folder, STREAM, keys, max_steps=max_steps, memory=0)
    assert isinstance(held, TensorTable)
    assert isinstance(mapped, MappedTable)
    return held, mapped


def slowly_shortened(x: np.ndarray, steps: int) -> np.ndarray:
    """Cut [T, D] at the rounded multiples of T / steps; average each part."""
    if len(x) <= steps:
        return x
    cuts = [int(np.round(k * len(x) / steps)) for k in range(steps + 1)]
    return np.array(
        [sum(x[t].astype(np.float64) for t in range(a, b)) / (b - a) for a, b in itertools.pairwise(cuts)]
    )


@pytest.mark.parametrize("max_steps", [1, 2, 3, 6, 64])
def test_a_table_holds_what_was_written(tmp_path: Path, clips: dict, max_steps: int) -> None:
    keys = ["c9", "c0", "nobody", "c1", "c2", "c5"]
    for table in both(tmp_path, keys, max_steps):
        assert len(table) == 6
        assert table.dim == 5
        assert table.steps == min(9, max_steps)
        got = table.gather(torch.arange(6))
        for row, key in enumerate(keys):
            x = clips.get(key)
            expected = np.zeros((0, 5)) if x is None else slowly_shortened(x, max_steps)
            assert int(got.length[row]) == len(expected)
            assert bool(got.present[row]) is (x is not None)
            np.testing.assert_allclose(got.x[row, : len(expected)].numpy(), expected, rtol=1e-5, atol=1e-6)
            assert not got.x[row, len(expected) :].any()


@pytest.mark.parametrize("max_steps", [1, 4, 64])
@pytest.mark.parametrize("shape", [(7,), (2, 3), (1, 2, 2), (0,)])
def test_on_disk_and_in_memory_are_the_same(
    tmp_path: Path, clips: dict, max_steps: int, shape: tuple[int, ...]
) -> None:
    held, mapped = both(tmp_path, list(clips), max_steps)
    rows = torch.randint(10, shape, generator=torch.Generator().manual_seed(0))
    for a, b in ((held, mapped), (held.pooled(), mapped.pooled())):
        one, other = a.gather(rows), b.gather(rows)
        torch.testing.assert_close(one.x, other.x)
        assert torch.equal(one.present, other.present)
        assert torch.equal(one.length, other.length)
        assert one.x.shape == (*shape, a.steps, 5)
    centre = torch.linspace(-1, 1, 5)
    for unit in (False, True):
        one, other = (t.normalised(unit, centre).gather(rows).x for t in (held, mapped))
        torch.testing.assert_close(one, other)


def test_pooled_is_the_mean_over_valid_steps(tmp_path: Path, clips: dict) -> None:
    for table in both(tmp_path, list(clips)):
        pooled = table.pooled()
        assert pooled.steps == 1
        for row, x in enumerate(clips.values()):
            expected = np.zeros(5) if x is None else x.mean(0)
            np.testing.assert_allclose(pooled.x[row, 0].numpy(), expected, rtol=1e-5, atol=1e-6)
            assert bool(pooled.present[row]) is (x is not None)


def test_a_stream_with_absent_clips_only_is_a_table(tmp_path: Path) -> None:
    with StreamWriter(tmp_path, Provenance("net", "frame", 5)) as writer:
        writer.add("a", None)
    for table in both(tmp_path, ["a", "b"]):
        got = table.gather(torch.arange(2))
        assert got.x.shape == (2, 1, 5)
        assert not got.present.any()


@pytest.mark.parametrize(("length", "steps"), [(1, 1), (5, 5), (9, 4), (100, 64), (65, 64), (3, 8)])
def test_shortening_weighs_all_of_the_clip(length: int, steps: int) -> None:
    x = np.random.default_rng(0).normal(size=(length, 3))
    got = shorten(x, steps)
    assert len(got) == min(length, steps)
    np.testing.assert_allclose(got, slowly_shortened(x, steps), rtol=1e-5, atol=1e-6)


def test_what_cannot_be_a_table_is_refused(tmp_path: Path, clips: dict) -> None:
    with pytest.raises(UsageError, match="max_steps is 0"):
        load_table(tmp_path, STREAM, ["c0"], max_steps=0)
    other = tmp_path / "other"
    with StreamWriter(other, Provenance("net", "frame", 5, dtype="float32", weights="else")) as writer:
        writer.add("z", None)
    (other / "streams/frame/net/00000.h5").rename(tmp_path / "streams/frame/net/00009.h5")
    with pytest.raises(CacheError, match="mixes features of different origin"):
        load_table(tmp_path, STREAM, ["c0"])


@pytest.mark.parametrize("clip", [f"c{i}" for i, length in enumerate(LENGTHS) if length])
def test_features_with_other_bytes_than_were_written_are_refused(
    tmp_path: Path, clips: dict, clip: str
) -> None:
    for path in (tmp_path / "streams/frame/net").glob("*.h5"):
        shard = read_shard(path, features=False)
        if clip in shard.key:
            flip(path, "features", int(shard.offset[shard.key.index(clip) + 1]) * 5 * 4 - 3)
            with pytest.raises(CacheError, match=rf"{path.name}' is damaged \(clip '{clip}' has .*--repair"):
                load_table(tmp_path, STREAM, list(clips))
    others = [key for key in clips if key != clip]
    table = load_table(tmp_path, STREAM, others)
    assert table.present.tolist() == [clips[key] is not None for key in others]


def test_a_wrong_checksum_is_damage_too(tmp_path: Path, clips: dict) -> None:
    flip(tmp_path / "streams/frame/net/00000.h5", "check", 0)
    with pytest.raises(CacheError, match="clip 'c5' has other bytes"):
        load_table(tmp_path, STREAM, list(clips))
