"""`fsmm extract`, `fsmm encoders` and `fsmm datasets` as a user runs them."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from extract_support import rows, same_rows, videos

FLOW = ("--encoder", "flow=dis-hof")
BOTH = (*FLOW, "--encoder", "audio=logmel-mfcc")


def fsmm(*words: object, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, preexec_fn=limit)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return videos(tmp_path_factory.mktemp("clips") / "data", 30)


@pytest.fixture(scope="module")
def cache(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the command made."""
    folder = tmp_path_factory.mktemp("cache")
    done = fsmm("extract", "--dataset", "folder", "--data", data, "--cache", folder, *BOTH)
    assert done.returncode == 0, done.stderr
    assert "30 done" in done.stdout
    return folder


def test_json_is_one_document_and_quiet_says_nothing_else(data: Path, cache: Path) -> None:
    done = fsmm(
        "extract", "--dataset", "folder", "--data", data, "--cache", cache, *BOTH, "--json", "--quiet"
    )
    report = json.loads(done.stdout)
    assert (report["skipped"], report["done"], report["folder"]) == (30, 0, str(cache / "data"))
    assert done.stderr == ""


def test_datasets_and_encoders_are_listed(cache: Path) -> None:
    listed = json.loads(fsmm("datasets", "--cache", cache, "--json").stdout)
    assert {row["name"] for row in listed["known"]} >= {"demo", "folder", "csv", "3massiv"}
    assert listed["held"] == [{"name": "data", "clips": 30, "streams": ["audio/logmel-mfcc", "flow/dis-hof"]}]
    assert "flow/dis-hof" in fsmm("datasets", "--cache", cache).stdout
    names = {row["name"]: row for row in json.loads(fsmm("encoders", "--json").stdout)}
    assert names["dis-hof"]["state"] == "ready"
    assert set(names) <= set(fsmm("encoders").stdout.split())
    assert "no weights" in fsmm("encoders", "--fetch", "dis-hof").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("extract", "--dataset", "foldr"), "Did you mean 'folder'"),
        (("extract", "--dataset", "folder"), "needs --data"),
        (("extract", "--dataset", "demo", "--streams", "frme"), "Did you mean 'frame'"),
        (("extract", "--dataset", "demo", "--encoder", "flow=dis-hoff"), "Did you mean 'dis-hof'"),
        (("extract", "--dataset", "demo", "--encoder", "dis-hof"), "is not of the form KEY=NAME"),
        (("extract", "--dataset", "demo", "--split-sizes", "3,2"), "--split-sizes takes three"),
        (("extract", "--dataset", "demo", "--class-split", "seed=x"), "whole number"),
        (("extract", "--dataset", "demo", "--class-split", "random:8:3"), "drawn by what reads the cache"),
        (("encoders", "--fetch", "yamnett"), "Did you mean 'yamnet'"),
    ],
)
def test_wrong_requests_are_one_sentence_and_exit_2(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    cache = ("--cache", tmp_path / "cache") if words[0] == "extract" else ()
    done = fsmm(*words, *cache)
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_without_the_video_half_it_says_how_to_get_it(data: Path, tmp_path: Path) -> None:
    script = "import sys; sys.modules['av'] = None; from fsmm.cli import main; main()"
    words = ["extract", "--dataset", "folder", "--data", str(data), "--cache", str(tmp_path / "c"), *FLOW]
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install -c constraints.txt -e ".[extract]"' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_cache_that_cannot_be_made_is_one_sentence(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = fsmm("extract", "--dataset", "folder", "--data", data, "--cache", tmp_path / "file" / "c", *FLOW)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_is_write_protected_is_one_sentence(data: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir(mode=0o555)
    done = fsmm("extract", "--dataset", "folder", "--data", data, "--cache", tmp_path / "c", *FLOW)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr


def test_when_no_clip_can_be_used_it_fails_and_says_where_to_look(tmp_path: Path) -> None:
    (tmp_path / "d" / "c").mkdir(parents=True)
    (tmp_path / "d" / "c" / "x.mp4").write_text("no video")
    done = fsmm(
        "extract", "--dataset", "folder", "--data", tmp_path / "d", "--cache", tmp_path / "cache", *FLOW
    )
    assert done.returncode == 1
    assert "None of the 1 clips" in done.stderr
    assert "failures.jsonl" in done.stderr


def whole_after(data: Path, cache: Path, reference: Path) -> bool:
    """Whether one more run brings the cache to the same rows as the reference."""
    done = fsmm("extract", "--dataset", "folder", "--data", data, "--cache", cache, *BOTH, "--json")
    assert done.returncode == 0, done.stderr
    return all(
        same_rows(rows(cache / "data", stream), rows(reference / "data", stream))
        for stream in ("flow/dis-hof", "audio/logmel-mfcc")
    )


def full_disk_ends_with_a_sentence(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("fsmm: ")]) == 1


def test_a_file_that_may_not_grow_stops_the_run_and_loses_nothing(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    words = ("extract", "--dataset", "folder", "--data", data, "--cache", tmp_path, *BOTH)
    small = 100_000
    done = fsmm(*words, limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (small, small)))
    full_disk_ends_with_a_sentence(done)
    assert not list(tmp_path.rglob(".*.tmp"))
    assert whole_after(data, tmp_path, cache)


def test_a_full_disk_stops_the_run_and_loses_nothing(data: Path, cache: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a small disk cannot be mounted here")
    try:
        done = fsmm("extract", "--dataset", "folder", "--data", data, "--cache", disk, *BOTH)
        full_disk_ends_with_a_sentence(done)
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert whole_after(data, disk, cache)
    finally:
        subprocess.run(["umount", str(disk)], check=False)
