"""CSV files, links and sources from elsewhere, as a user gives them to the commands."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from extract_support import facts, load_makers, rows

from fsmm.cache.catalog import Catalog

FPS = 20
STREAMS = ("--encoder", "flow=dis-hof", "--encoder", "audio=logmel-mfcc")


def fsmm(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsmm", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two films, one of which is also there as the files of its two halves; and a cut sound file."""
    makers = load_makers()
    folder = tmp_path_factory.mktemp("videos")
    (folder / "a").mkdir()

    def picture(shift: int) -> Any:
        return lambda k, w, h: makers.numbered((k + shift) * 37 % 0xFFFF, w, h)

    makers.video(folder / "a/film.mp4", frames=4 * FPS, fps=FPS, picture=picture(0), sound=300.0)
    makers.video(folder / "a/other.mkv", frames=2 * FPS, fps=FPS, picture=picture(99), sound=500.0)
    makers.video(folder / "first.mp4", frames=2 * FPS, fps=FPS, picture=picture(0), options={"qp": "0"})
    whole = makers.audio(folder / "whole.wav", seconds=3.0).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    return folder


def test_parts_of_a_film_roots_and_failures(videos: Path, tmp_path: Path) -> None:
    """A table as Excel writes it, far from the videos, with good and bad parts."""
    table = tmp_path / "tables" / "clips.csv"
    table.parent.mkdir()
    lines = [
        "sep=;", "Path;Start;End;Label", "a\\film.mp4;0;2;caf\u00e9", "a\\film.mp4;0:02;0:04;cafe\u0301",
        "a\\film.mp4;9;12;bar", "a/other.mkv;0,5;9;bar", "a/other.mkv;;;nan", "cut.wav;;;None",
    ]  # fmt: skip
    table.write_bytes("\r\n".join(lines).encode("utf-16"))
    command = ("extract", "--dataset", "csv", "--data", table, "--cache", tmp_path / "cache", *STREAMS)
    lost = fsmm(*command)
    assert lost.returncode == 2
    assert "'a/film.mp4'" in lost.stderr
    assert "--root" in lost.stderr
    done = fsmm(*command, "--root", videos)
    assert done.returncode == 0, done.stderr
    assert "6 clips: 5 done, 2 of them in part, 1 failed" in done.stdout
    folder = tmp_path / "cache" / "clips"
    catalog = Catalog.read(folder)
    assert catalog.clip_id == [
        "a/film.mp4#t=0,2", "a/film.mp4#t=2,4", "a/film.mp4#t=9,12", "a/other.mkv#t=0.5,9", "a/other.mkv", "cut.wav",
    ]  # fmt: skip
    assert catalog.labels().class_names == ["bar", "caf\u00e9"]
    assert catalog.labels().label.tolist() == [1, 1, 0, 0, -1, -1]
    duration = facts(folder, "duration")
    assert duration[:2] == pytest.approx([2.0, 2.0], abs=0.06)
    assert duration[3] == pytest.approx(1.5, abs=0.06)
    assert len(set(facts(folder, "sha256")[[0, 1, 3, 4, 5]].tolist())) == 5
    told = [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]
    reasons = {(line["id"], line["stage"]): line["reason"] for line in told}
    assert "line 5 of 'clips.csv'" in reasons["a/film.mp4#t=9,12", "decode"]
    assert "line 6 of 'clips.csv'" in reasons["a/other.mkv#t=0.5,9", "partial"]
    assert "cut off" in reasons["cut.wav", "partial"]
    flow, sound = rows(folder, "flow/dis-hof"), rows(folder, "audio/logmel-mfcc")
    assert flow["cut.wav"] is None
    assert sound["cut.wav"] is not None
    first, second = flow["a/film.mp4#t=0,2"], flow["a/film.mp4#t=2,4"]
    assert first is not None
    assert second is not None
    assert not np.allclose(first, second)


def test_a_part_has_the_features_of_a_file_of_its_own(videos: Path, tmp_path: Path) -> None:
    """The film's first half, and the same pictures as a file: flow differs by what coding does."""
    table = tmp_path / "clips.csv"
    table.write_text("id,path,start,end,label\npart,a/film.mp4,0,2,x\nfile,first.mp4,,,x\n")
    done = fsmm(
        "extract",
        "--dataset",
        "csv",
        "--data",
        table,
        "--root",
        videos,
        "--cache",
        tmp_path / "cache",
        *STREAMS[:2],
    )
    assert done.returncode == 0, done.stderr
    flow = rows(tmp_path / "cache" / "clips", "flow/dis-hof")
    part, file = flow["part"], flow["file"]
    assert part is not None
    assert file is not None
    a, b = part.astype(float).ravel(), file.astype(float).ravel()
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.95


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("a/film.mp4,3,1,x", "Line 3 of the CSV file: the clip ends at 1 s and starts at 3 s"),
        ("a/film.mp4,-2,1,x", "Line 3 of the CSV file: 'start' is '-2', which is negative"),
        ("/etc/hostname,0,1,x", "Line 3 of the CSV file: path '/etc/hostname' is not a file inside"),
    ],
)
def test_wrong_rows_are_one_sentence_with_their_line(
    videos: Path, tmp_path: Path, row: str, told: str
) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"path,start,end,label\na/film.mp4,0,1,x\n{row}\n")
    done = fsmm(
        "extract", "--dataset", "csv", "--data", table, "--root", videos, "--cache", tmp_path / "cache"
    )
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_links(videos: Path, tmp_path: Path) -> None:
    """A hub's download cache: names link to blobs outside of the folder."""
    (tmp_path / "snapshot" / "dance").mkdir(parents=True)
    os.symlink(videos / "a/film.mp4", tmp_path / "snapshot/dance/1.mp4")
    os.symlink(videos / "a", tmp_path / "snapshot/cook")
    command = (
        "extract",
        "--dataset",
        "folder",
        "--data",
        tmp_path / "snapshot",
        "--cache",
        tmp_path / "cache",
    )
    refused = fsmm(*command, *STREAMS[:2])
    assert refused.returncode == 2
    assert "2 links refused for leading out of the data folder" in refused.stderr
    assert "--follow-links" in refused.stderr
    done = fsmm(*command, *STREAMS[:2], "--follow-links")
    assert done.returncode == 0, done.stderr
    catalog = Catalog.read(tmp_path / "cache" / "snapshot")
    assert catalog.clip_id == ["cook/film.mp4", "cook/other.mkv", "dance/1.mp4"]
    assert catalog.labels().class_names == ["cook", "dance"]


def test_features_and_labels_as_strangers_keep_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = {f"v{i}": random.normal(size=(2, 4)).astype(np.float32) for i in range(6)}
    label = {clip: f"c{i % 2}" for i, clip in enumerate(x)}
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for clip, features in x.items():
            file[f"{clip}/rgb"] = features
            file[clip].attrs["label"] = label[clip]
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({c: {"rgb": x[c], "y": label[c]} for c in x}))
    for source, name in (("f.h5", "*@label"), ("f.pkl", "*/y")):
        mapping = {
            "dataset": source.replace(".", "-"),
            "source": source,
            "arrays": {"*/rgb": "frame/net"},
            "label_sets": {"y": name},
        }
        (tmp_path / "m.json").write_text(json.dumps(mapping))
        done = fsmm("cache", "import", tmp_path / "m.json", "--cache", tmp_path / "cache")
        assert done.returncode == 0, done.stderr
        catalog = Catalog.read(tmp_path / "cache" / str(mapping["dataset"]))
        assert catalog.clip_id == list(x)
        assert catalog.labels().label.tolist() == [0, 1, 0, 1, 0, 1]
    mapping = {**mapping, "dataset": "wrong", "source": "f.h5", "label_sets": {"y": "labels"}}
    (tmp_path / "m.json").write_text(json.dumps(mapping))
    done = fsmm("cache", "import", tmp_path / "m.json", "--cache", tmp_path / "cache")
    assert done.returncode == 2
    assert "Known: */rgb, *@label" in done.stderr
