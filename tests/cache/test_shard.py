"""A shard comes back as it was written, or not at all."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cache_support import shards
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmm.cache.header import HEADER_BYTES, header_is_right
from fsmm.cache.schema import Provenance
from fsmm.cache.shard import KIND, build_shard, clip_check, feature_block, read_shard, write_shard
from fsmm.errors import CacheError

FRAME = Provenance("net", "frame", 3, dtype="float32")


@given(shards())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(drawn) -> None:
    shard, rows = drawn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "00000.h5"
        write_shard(path, shard)
        found, mapped = read_shard(path), feature_block(path).map()
        assert header_is_right(path, KIND)
        assert [p.name for p in Path(folder).iterdir()] == ["00000.h5"]
        index = read_shard(path, features=False, facts=False)
        assert np.array_equal(mapped, found.features)
    assert found.key == index.key == [key for key, _, _ in rows]
    assert (found.provenance, found.dataset, found.written) == (shard.provenance, "toy", {"seconds": 1.5})
    assert found.features.dtype == np.dtype(shard.provenance.dtype)
    for i, (key, x, facts) in enumerate(rows):
        assert bool(found.present[i]) is (x is not None)
        assert found.facts["duration"][i] == facts["duration"]
        assert found.facts["width"][i] == facts["width"]
        expected = np.zeros((0, shard.provenance.dim), shard.provenance.dtype) if x is None else x
        assert np.array_equal(found.clip(i), expected)
        assert clip_check(key, x is not None, found.clip(i)) == int(found.check[i])
        mine, theirs = found.clip_times(i), shard.clip_times(i)
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)


@given(shards(), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_taking_rows_is_building_from_those_rows(drawn, random) -> None:
    shard, rows = drawn
    order = random.sample(range(len(rows)), random.randint(0, len(rows)))
    taken, built = shard.take(order), build_shard("toy", shard.provenance, [rows[i] for i in order])
    assert taken.key == built.key
    for name in ("features", "offset", "present", "check"):
        assert np.array_equal(getattr(taken, name), getattr(built, name)), name
    for i, row in enumerate(order):
        np.testing.assert_equal(taken.clip_times(i), shard.clip_times(row))


@given(shards())
@settings(max_examples=20, deadline=None)
def test_a_row_differs_from_its_neighbours_in_its_check(drawn) -> None:
    """Key, presence, shape, type and bytes all count."""
    shard, rows = drawn
    assert len(set(shard.check.tolist())) == len(rows)
    for key, x, _ in rows:
        if x is not None:
            known = clip_check(key, True, x)
            assert known != clip_check(key + "x", True, x)
            assert known != clip_check(key, False, x)
            assert known != clip_check(key, True, x.reshape(-1))
            assert known != clip_check(key, True, x.view(f"u{x.itemsize}"))


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    shard = build_shard("toy", FRAME, [("a", np.ones((2, 3)), {})])
    with pytest.raises(CacheError, match="could not be written"):
        write_shard(tmp_path / "nowhere" / "00000.h5", shard)
    shard.facts["broken"] = np.array([object()])
    with pytest.raises(TypeError):
        write_shard(tmp_path / "00000.h5", shard)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (np.ones((2, 4)), r"shape \[2, 4\].*stores \[T, 3\]"),
        (np.ones(3), "shape"),
        (np.ones((0, 3)), "T at least 1"),
        (np.full((1, 3), np.nan), "not finite as float32"),
        (np.full((1, 3), 1e300), "not finite as float32"),
        (np.full((1, 3), 1e-46), "too small for float32"),
    ],
)
def test_features_that_cannot_be_stored_are_refused_by_name(x: np.ndarray, says: str) -> None:
    with pytest.raises(CacheError, match=f"(?s)'clip7'.*{says}|{says}.*'clip7'"):
        build_shard("toy", FRAME, [("clip7", x, {})])


@pytest.mark.parametrize("x", [np.full((2, 3), 1e-10), np.full((1, 3), 1e-7, np.float32)])
def test_features_that_float16_rounds_away_are_refused_with_the_remedy(x: np.ndarray) -> None:
    half = replace(FRAME, dtype="float16")
    with pytest.raises(CacheError, match=r"'clip7' are too small for float16.*'dtype': 'float32'"):
        build_shard("toy", half, [("clip7", x, {})])
    assert build_shard("toy", half, [("clip7", np.zeros((2, 3)), {})]).features.any() == np.False_
    assert build_shard("toy", half, [("clip7", x * 1e6, {})]).features.all()


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800"])
def test_keys_that_text_cannot_hold_are_refused(key: str) -> None:
    with pytest.raises(CacheError, match="cannot be stored"):
        build_shard("toy", FRAME, [(key, None, {})])


def test_keys_from_file_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    key = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_shard(tmp_path / "00000.h5", build_shard("toy", FRAME, [(key, None, {})]))
    assert read_shard(tmp_path / "00000.h5").key == [key]


def test_every_byte_of_a_shard_is_under_its_seal(tmp_path: Path) -> None:
    """One bit of any byte, changed, is noticed: all of the header, and every 17th byte behind it."""
    path = tmp_path / "00000.h5"
    write_shard(path, build_shard("toy", FRAME, [("a", np.ones((2, 3)), {}), ("b", None, {})]))
    whole = path.read_bytes()
    with path.open("rb+", buffering=0) as file:
        for at in [*range(HEADER_BYTES), *range(HEADER_BYTES, len(whole), 17)]:
            file.seek(at)
            file.write(bytes([whole[at] ^ (1 << (at % 8))]))
            assert not header_is_right(path, KIND), at
            file.seek(at)
            file.write(whole[at : at + 1])
    assert header_is_right(path, KIND)
    path.write_bytes(whole[:-1])
    assert not header_is_right(path, KIND)


def test_a_file_that_is_no_shard_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "00000.h5"
    for content in (b"", b"not HDF5 at all", b"fsmm-shard 1 sha256="):
        path.write_bytes(content)
        with pytest.raises(CacheError, match="damaged"):
            read_shard(path)
