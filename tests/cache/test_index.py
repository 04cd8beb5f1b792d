"""The index of a stream says what its shards say, whatever has happened to either, and nothing depends on it."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmm.cache import index as index_module
from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.header import HEADER_BYTES
from fsmm.cache.index import NAME, StreamIndex, stream_index
from fsmm.cache.schema import Provenance, StreamName, shard_paths
from fsmm.cache.shard import build_shard, read_shard, write_shard
from fsmm.cache.stream import StreamWriter, stream_keys, stream_provenance
from fsmm.cache.table import TensorTable, load_table
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError

NET = Provenance("net", "frame", 3, dtype="float32")
STREAM = StreamName("frame", "net")
CLIPS = [f"clip {i}" for i in range(20)]


def features(i: int) -> np.ndarray | None:
    """The features of clip i, [T, 3]; clip 7 has none."""
    return None if i == 7 else np.full((1 + i % 3, 3), float(i), np.float32)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of twenty clips, one a shard, half of them novel."""
    folder = tmp_path / "cache" / "toy"
    labels = {"kind": LabelSet(["a", "b"], np.arange(20) % 2, splits={"default": np.array([1, 3])})}
    Catalog("toy", CLIPS, labels, "kind").write(folder)
    with StreamWriter(folder, NET, max_clips=1) as writer:
        for i, clip in enumerate(CLIPS):
            writer.add(clip, features(i))
    return tmp_path / "cache"


def place(cache: Path) -> Path:
    return cache / "toy" / "streams" / "frame" / "net" / NAME


def as_shards_say(cache: Path) -> list[tuple[str, str, int, int, int]]:
    """(shard, key, first step, steps, checksum) of each row, read shard by shard."""
    rows = []
    for path in shard_paths(cache / "toy", STREAM):
        shard = read_shard(path)
        for i, key in enumerate(shard.key):
            start, end = int(shard.offset[i]), int(shard.offset[i + 1])
            rows.append((path.name, key, start, end - start, int(shard.check[i])))
    return rows


def as_index_says(found: StreamIndex) -> list[tuple[str, str, int, int, int]]:
    columns = (found.shard, found.start, found.length, found.check)
    rows = zip(found.key, *(values.tolist() for values in columns), strict=True)
    return [(found.paths[shard].name, key, start, length, check) for key, shard, start, length, check in rows]


def test_the_writer_leaves_an_index_that_says_what_the_shards_say(cache: Path) -> None:
    assert place(cache).is_file()
    before = place(cache).stat().st_mtime_ns
    assert as_index_says(stream_index(cache / "toy", STREAM)) == as_shards_say(cache)
    assert place(cache).stat().st_mtime_ns == before, "an index that is right is not written again"


def test_shards_that_the_index_knows_are_not_opened(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a shard was opened")

    monkeypatch.setattr(index_module, "read_shard", refuse)
    assert len(stream_index(cache / "toy", STREAM).key) == 20
    bank = FeatureBank.load(cache)
    assert bank.tables["frame"].gather(bank.label * 0 + 1).x[0, 0].tolist() == [3.0, 3.0, 3.0]


def test_a_small_stream_has_no_index(tmp_path: Path) -> None:
    with StreamWriter(tmp_path / "toy", NET) as writer:
        writer.add("a", features(1))
    assert not place(tmp_path).exists()
    assert stream_index(tmp_path / "toy", STREAM).key == ["a"]


def test_a_bank_is_the_same_with_and_without_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_index = FeatureBank.load(cache)
    place(cache).unlink()
    monkeypatch.setattr(index_module, "_WORTH", 10**9)
    without = FeatureBank.load(cache)
    assert not place(cache).exists()
    one, other = with_index.tables["frame"], without.tables["frame"]
    assert isinstance(one, TensorTable)
    assert isinstance(other, TensorTable)
    assert one.x.equal(other.x)
    assert one.length.equal(other.length)
    # Clip i has 1 + i % 3 steps of the number i; clips of class b are the odd ones, and clip 7 has no features.
    odd = [i for i in range(20) if i % 2 and i != 7]
    assert one.x[:, :, 0].sum(1).tolist() == [i * (1 + i % 3) for i in odd]


def replaced(cache: Path) -> None:
    path = shard_paths(cache / "toy", STREAM)[4]
    write_shard(path, build_shard("toy", NET, [("clip 4", np.full((5, 3), -1.0), {})]))


def removed(cache: Path) -> None:
    shard_paths(cache / "toy", STREAM)[4].unlink()


def added(cache: Path) -> None:
    path = place(cache).with_name("00099.h5")
    write_shard(path, build_shard("toy", NET, [("another", np.ones((2, 3)), {}), ("none", None, {})]))


def renamed(cache: Path) -> None:
    first, *_, last = shard_paths(cache / "toy", STREAM)
    os.replace(last, first)


def bit_flip_in_the_index(cache: Path) -> None:
    contents = bytearray(place(cache).read_bytes())
    contents[len(contents) // 2] ^= 4
    place(cache).write_bytes(contents)


def torn_index(cache: Path) -> None:
    place(cache).write_bytes(place(cache).read_bytes()[:700])


def index_of_another_stream(cache: Path) -> None:
    with StreamWriter(cache / "toy", replace(NET, encoder="other"), max_clips=1) as writer:
        for clip in CLIPS:
            writer.add(clip, np.zeros((1, 3)))
    os.replace(cache / "toy" / "streams" / "frame" / "other" / NAME, place(cache))


@pytest.mark.parametrize(
    "change",
    [replaced, removed, added, renamed, bit_flip_in_the_index, torn_index, index_of_another_stream],
)
def test_whatever_happens_the_index_says_what_the_shards_say(cache: Path, change) -> None:
    change(cache)
    assert as_index_says(stream_index(cache / "toy", STREAM)) == as_shards_say(cache)
    assert as_index_says(stream_index(cache / "toy", STREAM)) == as_shards_say(cache), "from the renewed file"
    assert verify(cache).ok


def test_an_index_that_cannot_be_written_is_done_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(cache).unlink()

    def full(*_: object, **__: object) -> None:
        raise CacheError("no space")

    monkeypatch.setattr(index_module, "write_sealed", full)
    assert as_index_says(stream_index(cache / "toy", STREAM)) == as_shards_say(cache)
    assert not place(cache).exists()


def test_a_changed_byte_of_features_is_refused_though_the_index_is_right(cache: Path) -> None:
    path = shard_paths(cache / "toy", STREAM)[3]
    facts = path.stat()
    with h5py.File(path) as file:
        begin = file["features"].id.get_offset()
    with open(path, "r+b") as raw:
        raw.seek(begin + 2)
        raw.write(b"\x41")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as a failing disk would change it
    with pytest.raises(CacheError, match="clip 'clip 3' has other bytes than were written"):
        FeatureBank.load(cache)


def forged(cache: Path, name: str, row: int, value: int) -> None:
    """Change one number of the index and seal it again, as only somebody who means it can."""
    image = io.BytesIO(place(cache).read_bytes())
    with h5py.File(image, "r+") as file:
        file[name][row] = value
    contents = image.getvalue()
    line = contents[:HEADER_BYTES].partition(b"sha256=")[0]
    digest = hashlib.sha256(contents[HEADER_BYTES:]).hexdigest().encode()
    place(cache).write_bytes(
        (line + b"sha256=" + digest + b"\n").ljust(HEADER_BYTES, b"\0") + contents[HEADER_BYTES:]
    )


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("begin", 3, 10**9),  # beyond the end of the file
        ("begin", 3, -8),
        ("length", 3, 10**6),
        ("length", 3, -1),
        ("count", 3, 2),
        ("count", 3, -1),
        ("origin", 3, 5),
        ("size", 3, 1),
    ],
)
def test_a_forged_index_that_does_not_fit_is_ignored(cache: Path, name: str, row: int, value: int) -> None:
    forged(cache, name, row, value)
    assert as_index_says(stream_index(cache / "toy", STREAM)) == as_shards_say(cache)
    assert len(FeatureBank.load(cache)) == 9


@pytest.mark.parametrize(("name", "value"), [("begin", 600), ("check", 1)])
def test_a_forged_index_that_fits_reads_no_wrong_features(cache: Path, name: str, value: int) -> None:
    forged(cache, name, 3, value)
    with pytest.raises(CacheError, match="clip 3"):
        FeatureBank.load(cache)
    (finding,) = verify(cache).findings
    assert (finding.level, finding.kind) == ("damage", "index")
    assert verify(cache, repair=True).ok
    assert len(FeatureBank.load(cache)) == 9


def test_shards_of_another_origin_are_named(cache: Path) -> None:
    other = replace(NET, weights="others")
    write_shard(place(cache).with_name("00020.h5"), build_shard("toy", other, [("new", np.ones((1, 3)), {})]))
    for _ in range(2):  # from the shards, then from the index
        with pytest.raises(
            CacheError, match=r"00000.h5 and 00020.h5 differ \(weights is '' here and 'others'"
        ):
            stream_provenance(cache / "toy", STREAM)
        with pytest.raises(CacheError, match=r"mixes features of different origin \(00020.h5"):
            load_table(cache / "toy", STREAM, CLIPS)


def test_a_key_that_is_held_twice_counts_where_it_has_features(cache: Path) -> None:
    rows = [("clip 7", np.full((1, 3), 70.0), {}), ("clip 1", None, {})]
    write_shard(place(cache).with_name("00020.h5"), build_shard("toy", NET, rows))
    held = stream_keys(cache / "toy", STREAM)
    assert held["clip 7"]
    assert held["clip 1"]
    table = load_table(cache / "toy", STREAM, ["clip 7", "clip 1", "nowhere"])
    assert isinstance(table, TensorTable)
    assert table.x[:, 0, 0].tolist() == [70.0, 1.0, 0.0]
    assert table.present.tolist() == [True, True, False]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
            st.integers(0, 3),
        ),
        min_size=16,
        max_size=40,
        unique_by=lambda row: row[0],
    )
)
def test_any_keys_and_lengths_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "toy"
    with StreamWriter(folder, NET, max_clips=2) as writer:
        for key, steps in rows:
            writer.add(key, np.ones((steps, 3)) if steps else None)
    index_module._WORTH, worth = 1, index_module._WORTH
    try:
        stream_index(folder, STREAM)
        found = stream_index(folder, STREAM)
    finally:
        index_module._WORTH = worth
    assert found.key == [key for key, _ in rows]
    assert found.length.tolist() == [steps for _, steps in rows]
    assert as_index_says(found) == as_shards_say(folder.parent)
