"""verify finds any flipped bit, names what it hit, and repair loses no good clip."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsmm.cache.bank import FeatureBank
from fsmm.cache.catalog import Catalog, LabelSet
from fsmm.cache.header import READ_SCHEMAS, header_is_right
from fsmm.cache.schema import Provenance, StreamName, shard_paths
from fsmm.cache.shard import KIND, build_shard, clip_check, feature_block, read_shard, write_shard
from fsmm.cache.stream import StreamWriter, stream_checks, stream_keys
from fsmm.cache.upkeep import salvage as salvage_module
from fsmm.cache.upkeep.salvage import read_damaged, salvage
from fsmm.cache.upkeep.verify import Finding, verify
from fsmm.errors import CacheError
from fsmm.machine.digests import write_sums

FRAME = Provenance("net", "frame", 8, dtype="float32", weights_sha256="ab" * 32)
STREAM = StreamName("frame", "net")
IDS = [f"clip-{i}" for i in range(8)]
ABSENT = "clip-5"


def test_a_run_that_changed_after_it_ended_is_noted_and_left_alone(cache: Path) -> None:
    for name in ("protonet-1", "relation-2/seed-0"):
        run = cache / "toy" / "runs" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text("{}")
        (run / "episodes.npz").write_bytes(bytes(100))
        write_sums(run, ["config.json", "episodes.npz"])
    assert verify(cache).findings == []
    flip(cache / "toy" / "runs" / "relation-2" / "seed-0" / "episodes.npz", 50)
    for repair in (False, True):
        found = verify(cache, repair=repair)
        assert found.ok
        assert (only(found.findings).kind, only(found.findings).level) == ("run", "note")
        assert only(found.findings).place == "toy/runs/relation-2/seed-0"
        assert "episodes.npz changed after it ended" in only(found.findings).says
    (cache / "toy" / "runs" / "protonet-1" / "SHA256SUMS").write_bytes(b"\xff")
    assert ["list of digests" in finding.says for finding in verify(cache).findings] == [True, False]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Eight clips, one of them absent, in two shards of one stream."""
    folder = tmp_path / "toy"
    Catalog("toy", IDS, {"s": LabelSet(["x", "y"], np.arange(8) % 2)}, "s").write(folder)
    rng = np.random.default_rng(0)
    with StreamWriter(folder, FRAME, max_clips=6) as writer:
        for clip in IDS:
            writer.add(clip, None if clip == ABSENT else rng.normal(size=(3, 8)), {"duration": 2.5})
    return tmp_path


def shard(cache: Path, number: int = 0) -> Path:
    return shard_paths(cache / "toy", STREAM)[number]


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def feature_start(path: Path) -> int:
    return feature_block(path).begin


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


def test_a_whole_cache_is_whole(cache: Path) -> None:
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    for repair in (False, True):
        report = verify(cache, repair=repair)
        assert report.ok
        assert not report.findings
        assert (report.shards, report.clips) == (2, 8)
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("clip", range(5))
def test_a_bit_in_a_clips_features_names_clip_and_shard(cache: Path, clip: int) -> None:
    path = shard(cache)
    flip(path, feature_start(path) + clip * 3 * 8 * 4 + 50, bit=clip)
    found = only(verify(cache).findings)
    assert (found.level, found.kind, found.clips) == ("damage", "shard", [f"clip-{clip}"])
    assert found.place == "toy/streams/frame/net/00000.h5"
    assert "the other 5 of 6 clips are whole" in found.says


def test_repair_drops_the_damaged_clip_alone_and_says_what_is_built_again(cache: Path) -> None:
    before = stream_checks(cache / "toy", STREAM)
    path = shard(cache)
    flip(path, feature_start(path) + 3 * 8 * 4)
    report = verify(cache, repair=True)
    assert report.ok
    assert report.rebuild == {"toy/frame/net": ["clip-1"]}
    assert verify(cache).findings == []
    after = stream_checks(cache / "toy", STREAM)
    assert after == {clip: check for clip, check in before.items() if clip != "clip-1"}
    assert set(read_shard(path).facts["duration"]) == {2.5}
    with StreamWriter(cache / "toy", FRAME) as writer:  # what the next extract does
        writer.add("clip-1", np.ones((3, 8)))
    assert sorted(stream_keys(cache / "toy", STREAM)) == IDS


def region(byte: int, start: int) -> str:
    return "header" if byte < 512 else "features" if start <= byte < start + 5 * 3 * 8 * 4 else "around"


def test_a_bit_anywhere_is_found_and_what_is_kept_is_right(cache: Path) -> None:
    """250 random bits over the whole file, read as verify's other process does; the next test is all of verify.

    A flip in the header loses nothing, one in the features one clip. One in the HDF5 structure loses at most two (an
    offset has two neighbours), or else makes the whole file unreadable: 7 % of them, with HDF5 2.0.
    """
    path = shard(cache)
    whole = path.read_bytes()
    rows = read_shard(path)
    start = feature_start(path)
    dice = random.Random(0)
    kept: dict[str, list[int]] = {"header": [], "features": [], "around": []}
    for _ in range(250):
        byte = dice.randrange(len(whole)) if dice.random() < 0.9 else dice.randrange(start)
        where = region(byte, start)
        flip(path, byte, dice.randrange(8))
        assert not header_is_right(path, KIND)
        verdict, good = read_damaged(path, ("toy", FRAME))
        kept[where].append(verdict.good)
        if where == "features":
            assert verdict.bad == [f"clip-{(byte - start) // (3 * 8 * 4)}"]
        assert (good is None) == (verdict.good == 0)
        for i, key in enumerate(good.key if good else []):
            assert good is not None
            assert np.array_equal(good.clip(i), rows.clip(rows.key.index(key)))
            assert good.provenance == FRAME
        path.write_bytes(whole)
    assert set(kept["header"]) == {6}
    assert set(kept["features"]) == {5}
    assert np.mean(np.array(kept["around"]) >= 4) > 0.8  # 7 % make the file unreadable


@pytest.mark.parametrize("seed", range(4))
def test_verify_as_a_whole_over_random_bits(cache: Path, seed: int) -> None:
    dice = random.Random(seed)
    path = shard(cache, seed % 2)
    before = stream_checks(cache / "toy", STREAM)
    flip(path, dice.randrange(path.stat().st_size), dice.randrange(8))
    found = only(verify(cache).findings)
    assert found.level == "damage"
    assert found.place.endswith(path.name)
    report = verify(cache, repair=True)
    assert report.ok
    after = stream_checks(cache / "toy", STREAM)
    assert after.items() <= before.items()
    assert set(report.rebuild["toy/frame/net"]) == set(before) - set(after)
    assert verify(cache).findings == []


def test_damage_around_whole_clips_is_called_so(cache: Path) -> None:
    flip(shard(cache), 100)
    found = only(verify(cache).findings)
    assert found.says == "The file around the features is damaged; all 6 clips are whole."
    before = stream_checks(cache / "toy", STREAM)
    assert verify(cache, repair=True).ok
    assert stream_checks(cache / "toy", STREAM) == before


@pytest.mark.parametrize("size", [0, 100, 512, 3000])
def test_a_truncated_shard_is_named_and_deleted(cache: Path, size: int) -> None:
    path = shard(cache)
    path.write_bytes(path.read_bytes()[:size])
    found = only(verify(cache).findings)
    assert "Nothing in this shard" in found.says
    report = verify(cache, repair=True)
    assert report.ok
    assert not path.exists()
    assert report.rebuild == {"toy/frame/net": IDS[:6]}
    assert sorted(stream_keys(cache / "toy", STREAM)) == IDS[6:]


def test_a_damaged_origin_is_taken_from_the_healthy_shards_or_not_at_all(cache: Path) -> None:
    def spoil(path: Path) -> None:
        at = path.read_bytes().index(b"ab" * 32)
        flip(path, at)

    spoil(shard(cache))
    assert verify(cache, repair=True).ok
    assert read_shard(shard(cache)).provenance == FRAME
    assert len(stream_keys(cache / "toy", STREAM)) == 8
    shard(cache, 1).unlink()
    spoil(shard(cache))
    found = only(verify(cache, repair=True).findings)
    assert "What made this shard is damaged" in found.says
    assert shard_paths(cache / "toy", STREAM) == []


def test_a_process_that_hangs_or_dies_on_damage_is_survived(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 is known to loop or crash on hostile metadata; here the other process is made to."""
    script = cache / "instead"
    flip(shard(cache), 600)
    for body, says in (
        ("sleep 60", "does not come to an end"),
        ("kill -SEGV $$", "HDF5 fails on its metadata"),
    ):
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        with monkeypatch.context() as patch:
            patch.setattr(salvage_module.sys, "executable", str(script))
            patch.setattr(salvage_module, "SECONDS", 0.5)
            assert says in salvage(shard(cache)).dropped


def test_files_that_do_not_belong_are_set_aside_and_never_deleted(cache: Path) -> None:
    folder = shard(cache).parent
    (folder / "00007.h5").write_bytes(b"somebody's thesis")
    (folder / "README").write_text("mine")
    found = {f.place.rsplit("/", 1)[1]: f for f in verify(cache).findings}
    assert (found["00007.h5"].level, found["00007.h5"].kind) == ("damage", "foreign")
    assert (found["README"].level, found["README"].kind) == ("note", "foreign")
    assert verify(cache, repair=True).ok
    assert (folder / "00007.h5.set-aside").read_bytes() == b"somebody's thesis"
    assert (folder / "README").read_text() == "mine"
    assert all(f.level == "note" for f in verify(cache).findings)


def test_a_shard_of_another_origin_is_named_with_what_differs(cache: Path) -> None:
    other = replace(FRAME, weights_sha256="cd", sampling="random")
    write_shard(shard(cache).with_name("00009.h5"), build_shard("toy", other, [("z", None, {})]))
    found = only([f for f in verify(cache).findings if f.level == "damage"])
    assert (found.kind, found.place) == ("provenance", "toy/streams/frame/net/00009.h5")
    assert "weights_sha256 is 'cd' here" in found.says
    assert "sampling is 'random' here" in found.says
    assert verify(cache, repair=True).ok
    assert FeatureBank.load(cache, split="all").clip_row.size == 7
    assert shard(cache).with_name("00009.h5.set-aside").is_file()


@pytest.mark.parametrize("change", [{"encoder": "other"}, {"modality": "audio"}, {}])
def test_a_shard_in_the_wrong_folder_is_named(cache: Path, change: dict) -> None:
    lost = build_shard("toy" if change else "elsewhere", replace(FRAME, **change), [("z", None, {})])
    write_shard(shard(cache).with_name("00009.h5"), lost)
    found = only([f for f in verify(cache).findings if f.level == "damage"])
    assert "lies in the wrong folder" in found.says


def test_another_schema_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(READ_SCHEMAS, "fsmm-shard", (9,))
        write_shard(shard(cache).with_name("00009.h5"), build_shard("toy", FRAME, [("z", None, {})]))
    report = verify(cache, repair=True)
    found = only(report.findings)
    assert found.kind == "schema"
    assert "has cache schema 9" in found.says
    assert not report.ok
    assert shard(cache).with_name("00009.h5").is_file()


def test_leftovers_are_noted_and_cleared_unless_somebody_writes(cache: Path) -> None:
    leftover = shard(cache).with_name(".00002.h5.77.tmp")
    leftover.write_bytes(b"half")
    with StreamWriter(cache / "toy", FRAME):
        leftover.write_bytes(b"half")
        assert verify(cache).findings == []
        flip(shard(cache), 100)
        with pytest.raises(CacheError, match="Another process is writing"):
            verify(cache, repair=True)
    assert {f.kind for f in verify(cache, repair=True).findings} == {"leftover", "shard"}
    assert not leftover.exists()


def test_a_clip_held_twice_keeps_the_row_that_loading_uses(cache: Path) -> None:
    twice = [("clip-0", np.full((1, 8), 7.0), {}), ("clip-1", None, {}), (ABSENT, np.full((2, 8), 5.0), {})]
    write_shard(shard(cache).with_name("00002.h5"), build_shard("toy", FRAME, twice))
    before = FeatureBank.load(cache, split="all").tables["frame"].gather
    report = verify(cache)
    assert {f.kind for f in report.findings} == {"duplicate"}
    assert sorted(c for f in report.findings for c in f.clips) == ["clip-0", "clip-1", ABSENT]
    assert verify(cache, repair=True).ok
    assert verify(cache).findings == []
    bank = FeatureBank.load(cache, split="all")
    rows = bank.label.new_tensor(range(8))
    assert np.array_equal(before(rows).x.numpy(), bank.tables["frame"].gather(rows).x.numpy())
    assert sum(len(read_shard(p)) for p in shard_paths(cache / "toy", STREAM)) == 8


def test_keys_that_the_catalog_does_not_know_are_noted_and_kept(cache: Path) -> None:
    with StreamWriter(cache / "toy", FRAME) as writer:
        writer.add("stranger", None)
    for repair in (False, True):
        report = verify(cache, repair=repair)
        assert report.ok
        assert only(report.findings).clips == ["stranger"]
    assert "stranger" in stream_keys(cache / "toy", STREAM)


def test_a_damaged_catalog_is_set_aside_and_the_features_stay(cache: Path) -> None:
    path = cache / "toy" / "catalog.h5"
    flip(path, 3000)
    found = only(verify(cache).findings)
    assert (found.kind, found.level) == ("catalog", "damage")
    report = verify(cache, repair=True)
    assert report.ok or all(f.kind == "catalog" for f in report.findings)
    assert not path.exists()
    assert path.with_name("catalog.h5.set-aside").is_file()
    assert "There is no catalog" in only(verify(cache, "toy").findings).says
    assert len(stream_keys(cache / "toy", STREAM)) == 8


def test_lines_of_the_failures_list_that_are_torn_are_noted(cache: Path) -> None:
    (cache / "toy" / "failures.jsonl").write_text('{"id": "a"}\n{"id": \n')
    found = only(verify(cache).findings)
    assert (found.level, found.kind) == ("note", "failures")
    assert "Line 2" in found.says


def test_several_damages_at_once(cache: Path, make_cache: Callable[..., Path]) -> None:
    shutil.copytree(make_cache() / "toy" / "streams" / "audio", cache / "toy" / "streams" / "audio")
    flip(shard(cache, 0), 100)
    flip(shard(cache, 1), feature_start(shard(cache, 1)))
    report = verify(cache, repair=True)
    assert sum(f.kind == "shard" for f in report.findings) == 2
    assert report.ok
    assert report.rebuild == {"toy/frame/net": ["clip-6"]}


def test_no_dataset_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="no dataset in the cache"):
        verify(tmp_path)
    with pytest.raises(CacheError, match="no dataset 'x'"):
        verify(tmp_path, "x")


def test_the_check_covers_what_a_row_is(cache: Path) -> None:
    rows = read_shard(shard(cache))
    for i, key in enumerate(rows.key):
        assert clip_check(key, bool(rows.present[i]), rows.clip(i)) == int(rows.check[i])
