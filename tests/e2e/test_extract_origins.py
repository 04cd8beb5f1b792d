"""A data set and its files over time, as a user meets them: nothing is mixed, forgotten, or kept when it is stale."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from extract_support import SOUND, film, rows, videos
from tests_support import make_older

from fsmm.cache.catalog import Catalog

EAR = ("--encoder", "audio=logmel-mfcc")
FLOW = ("--encoder", "flow=dis-hof")


def fsmm(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def extract(data: Path, cache: Path, *more: object, kind: str = "folder") -> subprocess.CompletedProcess[str]:
    return fsmm("extract", "--dataset", kind, "--data", data, "--cache", cache, "--workers", 1, *EAR, *more)


def is_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> bool:
    lines = done.stderr.strip().splitlines()
    return done.returncode == 1 and len(lines) == 1 and all(part in lines[0] for part in parts)


def test_a_folder_at_two_moments(tmp_path: Path) -> None:
    """The moments of o06_replaced_and_moved_clips.py: a replaced, a moved and a deleted file."""
    data, cache = tmp_path / "pets", tmp_path / "cache"
    for name, hertz in (("cat/a", 300), ("cat/b", 500), ("dog/c", 700)):
        film(data / f"{name}.mp4", hertz)
    assert extract(data, cache).returncode == 0
    before = rows(cache / "pets", SOUND)
    film(data / "cat" / "a.mp4", 900)
    shutil.move(data / "cat" / "b.mp4", data / "dog" / "b.mp4")
    (data / "dog" / "c.mp4").unlink()
    second = extract(data, cache)
    assert second.returncode == 0, second.stderr
    assert "1 done, 1 already there, 1 changed, 1 moved, 1 listed no more" in second.stdout
    assert "dog/c.mp4" in second.stderr
    after = rows(cache / "pets", SOUND)
    assert (after["cat/a.mp4"] != before["cat/a.mp4"]).any()
    assert (after["dog/b.mp4"] == before["cat/b.mp4"]).all()
    told = fsmm("cache", "prune", "--cache", cache, "--dry-run")
    assert "dog/c.mp4" in told.stdout
    assert "dog/c.mp4" in rows(cache / "pets", SOUND)
    pruned = json.loads(fsmm("cache", "prune", "--cache", cache, "--json").stdout)
    assert pruned["removed"] == {"pets": ["dog/c.mp4"]}
    assert set(rows(cache / "pets", SOUND)) == {"cat/a.mp4", "dog/b.mp4"}
    assert fsmm("cache", "verify", "--cache", cache).returncode == 0


def test_two_folders_of_one_name(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    for number in (1, 2):
        film(tmp_path / f"p{number}" / "videos" / "a" / "0.mp4", 300 * number)
    assert extract(tmp_path / "p1" / "videos", cache).returncode == 0
    refused = extract(tmp_path / "p2" / "videos", cache)
    assert is_one_sentence(refused, "p1/videos", "p2/videos", "--name NAME", "--into videos")
    assert extract(tmp_path / "p2" / "videos", cache, "--name", "other").returncode == 0
    assert extract(tmp_path / "p2" / "videos", cache, "--into", "videos").returncode == 0
    held = rows(cache / "videos", SOUND)
    assert set(held) == {"a/0.mp4", "a/0.mp4@2"}
    assert (held["a/0.mp4"] != held["a/0.mp4@2"]).any()
    listed = json.loads(fsmm("cache", "info", "--cache", cache, "--json").stdout)["datasets"]
    assert [len(entry["origins"]) for entry in listed] == [1, 2]


def test_the_forms_of_the_demo_do_not_share_a_data_set(tmp_path: Path) -> None:
    clips, cache = tmp_path / "clips", tmp_path / "cache"
    assert extract(clips, cache, "--limit", 2, kind="demo").returncode == 0
    refused = extract(clips, cache, "--limit", 2, "--small", kind="demo")
    assert is_one_sentence(refused, "form full", "form small", "--name NAME", "--into demo")
    assert extract(clips, cache, "--limit", 2, "--small", "--name", "demo-small", kind="demo").returncode == 0


def test_two_writers_lose_neither_clips_nor_failures(tmp_path: Path) -> None:
    """One brings some clips through one encoder, the other all clips through another, at the same time."""
    data = videos(tmp_path / "data", 16)
    for folder in ("class0", "class3"):
        for i in range(5):
            (data / folder / f"bad{i}.mp4").write_text("no video")
    table = data / "some.csv"
    clips = sorted(path.relative_to(data).as_posix() for path in data.rglob("*.mp4"))
    assert extract(data, tmp_path / "seed", "--limit", 1, "--name", "x").returncode == 0
    for turn in range(2):
        cache = tmp_path / f"cache{turn}"
        shutil.copytree(tmp_path / "seed", cache)
        half = clips[: len(clips) // 2] if turn else clips[len(clips) // 2 :]
        table.write_text("path,label\n" + "".join(f"{clip},x\n" for clip in half))
        words = [sys.executable, "-m", "fsmm", "extract", "--cache", str(cache), "--workers", "1", "-q"]
        orders = (
            ["--dataset", "csv", "--data", str(table), "--into", "x", *FLOW],
            ["--dataset", "folder", "--data", str(data), "--name", "x", *EAR],
        )
        writers = [subprocess.Popen([*words, *order], stdout=subprocess.PIPE) for order in orders]
        assert [writer.wait(300) for writer in writers] == [0, 0]
        assert sorted(Catalog.read(cache / "x").clip_id) == clips
        lines = (cache / "x" / "failures.jsonl").read_text().splitlines()
        failed = {json.loads(line)["id"] for line in lines}
        assert failed == {clip for clip in clips if "bad" in clip}


@pytest.mark.parametrize("repeat", range(2))
def test_of_two_first_writers_of_other_data_one_is_refused(tmp_path: Path, repeat: int) -> None:
    """The input of r_catalog_race.py: two folders into one name."""
    for name in ("one", "other"):
        for i in range(6):
            film(tmp_path / name / f"k{i // 3}" / f"{name}{i}.mp4", 300 + 40 * i)
    words = [sys.executable, "-m", "fsmm", "extract", "--dataset", "folder", "--name", "x", "-q", *EAR]
    words += ["--cache", str(tmp_path / "cache"), "--workers", "1"]
    writers = [
        subprocess.Popen([*words, "--data", str(tmp_path / name)], stderr=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    told = [writer.communicate(timeout=300)[1] for writer in writers]
    codes = [writer.returncode for writer in writers]
    assert sorted(codes) == [0, 1]
    assert "--into x" in told[codes.index(1)]
    kept = ("one", "other")[codes.index(0)]
    assert all(kept in clip for clip in Catalog.read(tmp_path / "cache" / "x").clip_id)
    assert len(Catalog.read(tmp_path / "cache" / "x")) == 6


def test_an_older_cache_is_read_and_upgraded_without_decoding(tmp_path: Path) -> None:
    data, cache = videos(tmp_path / "data", 8, classes=2), tmp_path / "cache"
    assert extract(data, cache, "--split-sizes", "0,0,2").returncode == 0
    make_older(cache / "data" / "catalog.h5")
    evaluate = (
        "episode-eval",
        "--method",
        "nearest",
        "--n-way",
        2,
        "--n-query",
        1,
        "--episodes",
        20,
        "--json",
    )
    older = fsmm(*evaluate, "--cache", cache, "--out", tmp_path / "run")
    assert older.returncode == 0, older.stderr
    assert any("fsmm cache upgrade" in note for note in json.loads(older.stdout)["notes"])
    assert is_one_sentence(extract(data, cache), "can only be read", f"`fsmm cache upgrade --cache {cache}`")
    assert "schema 1" in fsmm("cache", "info", "--cache", cache).stdout
    assert fsmm("cache", "upgrade", "--cache", cache).returncode == 0
    again = extract(data, cache)
    assert "0 done, 8 already there" in again.stdout
    newer = json.loads(fsmm(*evaluate, "--cache", cache, "--out", tmp_path / "again").stdout)
    assert newer["notes"] == []
    assert newer["fingerprint"] == json.loads(older.stdout)["fingerprint"]
