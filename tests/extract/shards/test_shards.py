"""Shards of an extraction: every clip in exactly one, joined they are the plain extraction, whoever did them when."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from extract_support import SOUND, extracted, rows, same_rows, videos
from typer.testing import CliRunner

from fsmm.cache.catalog import Catalog
from fsmm.cache.job import JobFolder, read_manifest
from fsmm.cache.upkeep.join import join_shards
from fsmm.cache.upkeep.merge import merge
from fsmm.cache.upkeep.verify import verify
from fsmm.cli import app
from fsmm.errors import CacheError, UsageError
from fsmm.extract.clip_files import sha256_of
from fsmm.extract.shards.plan import Part, shard_of
from fsmm.extract.shards.status import job_statuses
from fsmm.machine.locks import lock_of

SHARDS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, and one file that is no video."""
    root = videos(tmp_path_factory.mktemp("clips") / "data", 12)
    (root / "class0" / "no-video.mp4").write_bytes(b"no video")
    return root


@pytest.fixture(scope="module")
def plain(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.mktemp("plain")
    extracted(data, cache)
    return cache / "data"


@pytest.fixture(scope="module")
def shards(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all shards finished, none joined; do not change it."""
    cache = tmp_path_factory.mktemp("shards") / "cache"
    for number in (2, 1, 3):
        extracted(data, cache, shard=f"{number}/{SHARDS}")
    return cache


def same(one: Path, other: Path) -> bool:
    """Whether two data sets hold the same features of the same clips in the same order, and tell the same failures."""
    catalogs = [Catalog.read(folder) for folder in (one, other)]
    failures = [(folder / "failures.jsonl").read_text() for folder in (one, other)]
    return (
        same_rows(rows(one, SOUND), rows(other, SOUND))
        and catalogs[0].clip_id == catalogs[1].clip_id
        and catalogs[0].facts["sha256"].tolist() == catalogs[1].facts["sha256"].tolist()
        and failures[0] == failures[1]
    )


def test_the_shards_of_one_cache_joined_are_the_plain_extraction(
    shards: Path, plain: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(shards, cache)
    report = join_shards(cache)
    assert report.copied == {f"data/{SOUND}": 12}
    assert same(cache / "data", plain)
    assert verify(cache).ok
    (status,) = job_statuses(cache, "data")
    assert (status.joined, status.clips_done, status.failed) == ([1, 2, 3], 12, 1)
    with pytest.raises(CacheError, match="No finished shard"):
        join_shards(cache)


def test_the_caches_of_several_machines_merged_are_the_plain_extraction(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    machines = [tmp_path / f"laptop{number}" for number in range(SHARDS)]
    for number, cache in enumerate(machines, 1):
        extracted(data, cache, shard=f"{number}/{SHARDS}")
    merge(machines, tmp_path / "all")
    assert same(tmp_path / "all" / "data", plain)


def test_manifests_tell_the_files_the_failures_and_that_each_clip_has_one_shard(
    shards: Path, data: Path
) -> None:
    job = JobFolder(shards / "data")
    found = {}
    for folder in job.all_finished():
        manifest = read_manifest(folder / "manifest.json")
        held = rows(folder / "data", SOUND)
        assert all(shard_of(clip, SHARDS) == manifest.shard for clip in held)
        assert manifest.clips == len(held) + manifest.failed
        assert all(sha256_of([folder / name]) == digest for name, digest in manifest.files.items())
        found |= held
    assert len(found) == 12
    (status,) = job_statuses(shards, None)
    assert (status.finished, status.failed, status.open) == ([1, 2, 3], 1, [])
    assert list(status.reasons.values()) == [1]
    assert "decode: '...' is no video" in status.summary()


def test_a_finished_shard_is_left_alone_and_another_plan_is_refused(
    shards: Path, data: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(shards, cache)
    again = extracted(data, cache, shard=f"1/{SHARDS}")
    assert again.done == again.failed == 0
    with pytest.raises(CacheError, match=r"shards is 3 there and 4 here.*cache merge"):
        extracted(data, cache, shard="1/4")
    with pytest.raises(CacheError, match="of stream audio/logmel-mfcc, dtype is 'float16' here"):
        extracted(data, cache, shard=f"1/{SHARDS}", dtype="float32")
    videos(data.parent / "more" / "data", 1)
    with pytest.raises(CacheError, match="clips is 13 there and 1 here"):
        extracted(data.parent / "more" / "data", cache, shard=f"1/{SHARDS}")


def test_a_shard_left_half_done_is_gone_on_with_and_one_in_work_is_refused(
    data: Path, plain: Path, tmp_path: Path
) -> None:
    """A finished shard that loses its name and its last features is one whose writer was killed before the end."""
    cache = tmp_path / "cache"
    job = JobFolder(cache / "data")
    first = extracted(data, cache, shard=f"1/{SHARDS}")
    os.replace(job.finished(1), job.work(1))
    (job.work(1) / "manifest.json").unlink()
    (status,) = job_statuses(cache, "data")
    assert (status.left, status.clips_half, status.open) == ([1], first.done, [2, 3])
    with lock_of(job.lock(1)):
        assert job_statuses(cache, "data")[0].working == [1]
        with pytest.raises(CacheError, match=f"Another process is doing shard 1 of {SHARDS}"):
            extracted(data, cache, shard=f"1/{SHARDS}")
    again = extracted(data, cache, shard=f"1/{SHARDS}")
    assert (again.done, again.skipped) == (0, first.done)
    assert read_manifest(job.finished(1) / "manifest.json").clips == first.clips


def test_shards_leave_out_what_the_data_set_holds(data: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "data")
    reports = [extracted(data, tmp_path, shard=f"{number}/{SHARDS}") for number in (1, 2, 3)]
    assert sum(report.done for report in reports) == 0
    join_shards(tmp_path)
    assert same(tmp_path / "data", plain)


def test_a_shard_without_clips_and_one_without_a_usable_clip_are_finished_all_the_same(
    tmp_path: Path,
) -> None:
    data = videos(tmp_path / "data", 1)
    (data / "class0" / "no-video.mp4").write_bytes(b"no video")
    for number in range(1, 9):
        extracted(data, tmp_path / "cache", shard=f"{number}/8")
    join_shards(tmp_path / "cache")
    assert list(rows(tmp_path / "cache" / "data", SOUND)) == ["class0/000.mp4"]
    lines = (tmp_path / "cache" / "data" / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["class0/no-video.mp4"]


def test_class_words_are_embedded_by_the_first_shard_alone(tmp_path: Path) -> None:
    data = videos(tmp_path / "data", 6)
    for number in (1, 2):
        extracted(data, tmp_path / "cache", SOUND, "word", shard=f"{number}/2")
    job = JobFolder(tmp_path / "cache" / "data")
    words = [sorted(path.name for path in folder.rglob("word")) for folder in job.all_finished()]
    assert words == [["word"], []]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"shard": "0/4"}, "I from 1 to N"),
        ({"shard": "5/4"}, "I from 1 to N"),
        ({"shard": "four"}, "not 'four'"),
        ({"shards": 4}, "for --engine ray"),
        ({"shard": "1/2", "engine": "ray"}, "give one"),
        ({"max_failures": "many"}, "a share such as 2%"),
        ({"max_failures": "200%"}, "a share such as 2%"),
    ],
)
def test_wrong_requests_are_one_sentence(
    data: Path, tmp_path: Path, wrong: dict[str, object], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        extracted(data, tmp_path, **wrong)
    assert not any(tmp_path.iterdir())


def test_no_clip_is_in_two_shards_and_shards_are_of_like_size() -> None:
    """Of 20,000 clips in 16 shards, a shard's number has a standard deviation of 34."""
    sizes = [0] * 16
    for i in range(20_000):
        sizes[shard_of(f"clip{i}.mp4", 16) - 1] += 1
    assert max(abs(size - 1250) for size in sizes) < 5 * 34
    assert Part.parse("16/16") == (16, 16)


def test_the_commands_tell_the_state_and_join(shards: Path, plain: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(shards, cache)
    shutil.rmtree(JobFolder(cache / "data").finished(2))
    words = ["extract", "--dataset", "folder", "--cache", str(cache), "--status"]
    told = CliRunner().invoke(app, words).stdout
    assert "data: 3 shards: 2 finished, 1 open" in told
    assert "open: 2" in told
    (status,) = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (status["finished"], status["open"]) == ([1, 3], [2])
    joined = CliRunner().invoke(app, ["cache", "merge", "--cache", str(cache)])
    assert joined.exit_code == 0
    assert rows(cache / "data", SOUND).keys() < rows(plain, SOUND).keys()
    assert "2 joined, 1 open" in CliRunner().invoke(app, words).stdout
    nothing = CliRunner().invoke(app, [*words[:4], str(tmp_path / "none"), "--status"])
    assert "No shared extraction has been planned" in str(nothing.exception)
