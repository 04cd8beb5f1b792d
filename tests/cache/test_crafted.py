"""A cache from elsewhere may hold pipes, folders and nested JSON: there is a sentence or a finding, and no hang."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.header import HEADER_BYTES, header_is_right
from fsmm.cache.schema import Provenance, StreamName, list_streams, shard_paths
from fsmm.cache.shard import KIND, feature_block, read_shard
from fsmm.cache.stream import StreamWriter
from fsmm.cache.upkeep.info import info
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.verify import verify
from fsmm.errors import CacheError, FsmmError
from fsmm.extract.pipeline.failures import FailureLog
from fsmm.machine.files import read_table

STREAM = StreamName("frame", "net")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache" / "toy"
    labels = {"kind": LabelSet(["a", "b"], np.array([0, 1]), splits={"default": np.array([3, 3])})}
    Catalog("toy", ["c1", "c2"], labels, "kind").write(folder)
    with StreamWriter(folder, Provenance("net", "frame", 3, dtype="float32")) as writer:
        for clip in ("c1", "c2"):
            writer.add(clip, np.ones((1, 3), np.float32))
    return tmp_path / "cache"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_with_a_shards_name_is_found_and_not_read(
    cache: Path, make: Callable[[Path], None]
) -> None:
    place = cache / "toy" / "streams" / "frame" / "net" / "00001.h5"
    make(place)
    assert [path.name for path in shard_paths(cache / "toy", STREAM)] == ["00000.h5"]
    assert len(FeatureBank.load(cache)) == 2
    (finding,) = verify(cache).findings
    assert (finding.level, finding.kind) == ("damage", "foreign")
    assert verify(cache, repair=True).ok
    assert verify(cache).ok


def test_a_stream_of_pipes_only_is_no_stream(cache: Path) -> None:
    folder = cache / "toy" / "streams" / "audio" / "ear"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "00000.h5")
    assert list_streams(cache / "toy") == [STREAM]


def test_nested_json_in_the_list_of_failures_is_one_line_that_cannot_be_read(
    cache: Path, tmp_path: Path
) -> None:
    path = cache / "toy" / "failures.jsonl"
    path.write_text("[" * 100_000 + "\n")
    assert info(cache).datasets[0].failures == {"(a line that cannot be read)": 1}
    assert [finding.kind for finding in verify(cache).findings] == ["failures"]
    assert FailureLog(cache / "toy").read() == {}
    merge([cache], tmp_path / "other")


def test_a_list_of_failures_that_is_a_pipe_is_refused(cache: Path) -> None:
    os.mkfifo(cache / "toy" / "failures.jsonl")
    assert info(cache).datasets[0].failures == {}
    with pytest.raises(CacheError, match="is a pipe or a device"):
        FailureLog(cache / "toy").read()


@pytest.mark.parametrize("name", ["pipe.json", "pipe.yaml"])
def test_a_table_that_is_a_pipe_or_device_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for path in (tmp_path / name, Path("/dev/zero")):
        with pytest.raises(FsmmError, match=r"mapping file .* is a pipe or a device"):
            read_table(path, "mapping file")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "{}", '{"encoder": "net"}', "[1]", "null", "5"],
    ids=["nested", "{}", "short", "list", "null", "5"],
)
def test_a_provenance_that_is_none_is_one_sentence(text: str) -> None:
    with pytest.raises(CacheError, match="provenance cannot be read"):
        Provenance.from_json(text)


@pytest.mark.parametrize(
    "change", [{"dim": "3"}, {"weights_sha256": 5}, {"extra": {"a": 1}}, {"extra": []}, {"modality": None}]
)
def test_a_provenance_with_values_of_other_types_is_refused(change: dict[str, object]) -> None:
    values = {**json.loads(Provenance("net", "frame", 3).to_json()), **change}
    with pytest.raises(CacheError, match="of another type than it should be"):
        Provenance.from_json(json.dumps(values))


def shard(cache: Path) -> Path:
    return shard_paths(cache / "toy", STREAM)[0]


def seal(path: Path, kind: str = KIND) -> None:
    """Give a file the seal of its contents, as anybody can."""
    contents = path.read_bytes()
    digest = hashlib.sha256(contents[HEADER_BYTES:]).hexdigest()
    line = contents.partition(b"sha256=")[0] + f"sha256={digest}\n".encode()
    path.write_bytes(line.ljust(HEADER_BYTES, b"\0") + contents[HEADER_BYTES:])
    assert header_is_right(path, kind)


@pytest.mark.parametrize("name", ["shard", "catalog"])
def test_a_sparse_file_that_claims_terabytes_is_named_and_not_read(cache: Path, name: str) -> None:
    path = shard(cache) if name == "shard" else cache / "toy" / "catalog.h5"
    os.truncate(path, 5 << 40)
    began = time.monotonic()
    with pytest.raises(
        CacheError, match=r"it claims 5,497,558,138,880 bytes, of which [\d,]+ lie on the disk"
    ):
        FeatureBank.load(cache)
    findings = verify(cache).findings
    assert any("5,497,558,138,880 bytes" in finding.says for finding in findings)
    assert all(finding.level == "damage" for finding in findings)
    verify(cache, repair=True)
    assert path.with_name(f"{path.name}.set-aside").is_file()
    assert time.monotonic() - began < 60


def test_a_sparse_shard_does_not_hold_up_a_merge(cache: Path, tmp_path: Path) -> None:
    os.truncate(shard(cache), 5 << 40)
    with pytest.raises(CacheError, match="is damaged"):
        merge([cache], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def move_block(path: Path, old: int, new: int) -> None:
    """Let the values that begin at byte ``old`` of a shard begin at byte ``new`` instead, and seal the file."""
    contents = path.read_bytes()
    before, after = ((place - HEADER_BYTES).to_bytes(8, "little") for place in (old, new))
    assert contents.count(before) == 1, "the address must stand in the file once"
    path.write_bytes(contents.replace(before, after))
    seal(path)


def begin_of(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return int(file[name].id.get_offset())


@pytest.mark.parametrize("beyond", [0, 1 << 40])
def test_features_beyond_the_end_of_a_sealed_file_are_refused(cache: Path, beyond: int) -> None:
    path = shard(cache)
    move_block(path, begin_of(path, "features"), path.stat().st_size - 8 + beyond)
    for read in (read_shard, feature_block, lambda _: FeatureBank.load(cache)):
        with pytest.raises(CacheError, match="is damaged"):
            read(path)
    assert not verify(cache).ok


def test_features_that_lie_over_other_values_of_a_sealed_file_are_refused(cache: Path) -> None:
    path = shard(cache)
    move_block(path, begin_of(path, "features"), begin_of(path, "key"))
    with pytest.raises(CacheError, match="lie over those of"):
        read_shard(path)
    with pytest.raises(CacheError, match="lie over those of"):
        FeatureBank.load(cache)
    assert not verify(cache).ok


@pytest.mark.parametrize("name", ["key", "check", "offset", "present"])
def test_values_that_refer_to_other_places_of_a_sealed_file_are_refused(cache: Path, name: str) -> None:
    path = shard(cache)
    with h5py.File(path, "r+") as file:
        del file[name]
        file.create_dataset(name, data=["c1", "c2"], dtype=h5py.string_dtype())
    seal(path)
    with pytest.raises(CacheError, match="references to other places"):
        read_shard(path)
    assert not verify(cache).ok
