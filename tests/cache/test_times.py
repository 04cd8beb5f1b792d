"""The times of steps come back as written, wherever a shard goes, and no reader depends on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tests_support import flip

from fsmm.cache.alignment import step_times
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.exchange.exporting import export_features
from fsmm.cache.exchange.importing import import_features
from fsmm.cache.index import stream_index
from fsmm.cache.rewrite import rewrite_stream
from fsmm.cache.schema import Provenance, StreamName, shard_paths
from fsmm.cache.shard import build_shard, read_shard, write_shard
from fsmm.cache.stream import StreamWriter
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.salvage import salvage
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError

FRAME = Provenance("net", "frame", 3, dtype="float32")
STREAM = StreamName("frame", "net")
STEPS = {"a": 2, "b": 0, "c": 4, "d": 1, "e": 3}
UNKNOWN = "d"


def times_of(clip: str) -> np.ndarray | None:
    """The times that the clip has: none where it is absent, and one clip does not know them."""
    count = STEPS[clip]
    return None if clip == UNKNOWN or not count else np.arange(count, dtype=np.float32) * 0.75 + ord(clip)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "one" / "toy"
    Catalog("toy", list(STEPS), {"s": LabelSet(["x", "y"], np.arange(5) % 2)}, "s").write(folder)
    rng = np.random.default_rng(0)
    with StreamWriter(folder, FRAME, max_clips=3) as writer:
        for clip, count in STEPS.items():
            writer.add(clip, rng.normal(size=(count, 3)) if count else None, None, times_of(clip))
    return tmp_path / "one"


def held(cache: Path) -> dict[str, list[float] | None]:
    found: dict[str, list[float] | None] = {}
    for path in shard_paths(cache / "toy", STREAM):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            times = shard.clip_times(i)
            found[key] = None if times is None else times.tolist()
    return found


def expected(clips: str = "abcde") -> dict[str, list[float] | None]:
    return {clip: None if (times := times_of(clip)) is None else times.tolist() for clip in clips}


def test_times_are_written_and_verified(cache: Path) -> None:
    assert held(cache) == expected()
    assert verify(cache).findings == []
    with pytest.raises(
        CacheError, match=r"frame/net does not know the times of its steps \(clip 'd'\).*fsmm cache rm"
    ):
        step_times(stream_index(cache / "toy", STREAM), STREAM, list(STEPS))
    without = [clip for clip in STEPS if clip != UNKNOWN]
    found = step_times(stream_index(cache / "toy", STREAM), STREAM, [*reversed(without), "nobody"])
    np.testing.assert_equal(found, [*(times_of(clip) for clip in reversed(without)), None])


def test_a_shard_without_times_has_no_trace_of_them(tmp_path: Path) -> None:
    """So it is byte for byte what releases wrote that knew no times."""
    write_shard(tmp_path / "0.h5", build_shard("toy", FRAME, [("a", np.ones((2, 3)), {})], times=[None]))
    with h5py.File(tmp_path / "0.h5") as file:
        assert set(file) == {"features", "offset", "key", "present", "check", "facts"}
        assert "times_check" not in file.attrs


def test_times_follow_rows_through_merge_export_and_new_names(cache: Path, tmp_path: Path) -> None:
    merge([cache], tmp_path / "merged")
    assert held(tmp_path / "merged") == expected()
    export_features(cache, tmp_path / "out.npz")
    assert np.load(tmp_path / "out.npz")["frame/net.times"].shape == (5, 4)
    import_features(tmp_path / "out.json", tmp_path / "again")
    assert held(tmp_path / "again") == expected()
    rewrite_stream(cache / "toy", STREAM, lambda key, _: {"a": "z", "c": None}.get(key, key))
    assert held(cache) == {"z": expected()["a"], **expected("bde")}


def test_damage_to_a_clip_keeps_the_times_of_others_and_damage_to_times_keeps_all_clips(cache: Path) -> None:
    first = shard_paths(cache / "toy", STREAM)[0]
    whole = first.read_bytes()
    flip(first, "features", 0)
    assert verify(cache, repair=True).rebuild == {"toy/frame/net": ["a"]}
    assert held(cache) == expected("bcde")
    first.write_bytes(whole)
    flip(first, "times", 5)
    verdict = salvage(first)
    assert (verdict.good, verdict.times, verdict.facts) == (3, False, True)
    (finding,) = verify(cache, repair=True).findings
    assert "(among it the times of the steps)" in finding.says
    assert held(cache) == {**dict.fromkeys("abc"), **expected("de")}
    assert verify(cache).findings == []


def test_times_that_were_exchanged_under_a_right_seal_are_refused(cache: Path, tmp_path: Path) -> None:
    first = shard_paths(cache / "toy", STREAM)[0]
    shutil.copy(first, tmp_path / "0.h5")
    with h5py.File(tmp_path / "0.h5", "r+") as file:
        file["times"][0] = 99.0
    with pytest.raises(CacheError, match="times are not the ones that were written"):
        read_shard(tmp_path / "0.h5")


@pytest.mark.parametrize("times", [[0.0, 1.0, 2.0], [1.0, 0.5], [0.0, np.inf], [[0.0], [1.0]]])
def test_times_that_do_not_fit_are_refused_with_the_clip(tmp_path: Path, times: list[float]) -> None:
    with StreamWriter(tmp_path / "toy", FRAME) as writer, pytest.raises(CacheError, match="times of 'a'"):
        writer.add("a", np.ones((2, 3)), times=np.array(times))


def test_imported_times_come_from_an_array_beside_the_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "f.npz",
        x=rng.normal(size=(6, 3)),
        n=np.array([2, 0, 4]),
        t=np.arange(6) / 2,
        label=np.array(["p", "q", "p"]),
    )
    spec = {"stream": "frame/net", "length": "n", "concatenated": True, "times": "t", "dtype": "float32"}
    text = '{"dataset": "toy", "source": "f.npz", "arrays": {"x": %s}, "label_sets": {"s": "label"}}'
    (tmp_path / "m.json").write_text(text % json.dumps(spec))
    import_features(tmp_path / "m.json", tmp_path / "cache")
    assert list(held(tmp_path / "cache").values()) == [[0.0, 0.5], None, [1.0, 1.5, 2.0, 2.5]]
