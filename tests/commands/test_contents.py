"""`fsmm cache show` and `fsmm cache rm` as a user runs them: one process a command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import called
from tests_support import synthetic_cache

from fsmm.cache.catalog import Catalog
from fsmm.cache.schema import list_datasets, list_streams


def fsmm(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = called("cache", *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return synthetic_cache(tmp_path / "cache", classes=6, clips=8, absent=0.3, unlabelled=2)


def test_show_prints_classes_the_split_s_origin_and_clips(cache: Path) -> None:
    catalog = Catalog.read(cache / "toy")
    catalog.label_sets["event"].split_origin["default"] = "drawn by seed 4 from 6 classes"
    catalog.write(cache / "toy")
    shown = fsmm("show", "--cache", cache).stdout
    assert all(f"class {i}" in shown for i in range(6))
    assert "2 base, 2 val, 2 novel; drawn by seed 4 from 6 classes." in shown
    assert "30 more clips: --clips shows them" in shown
    assert "clip19" in shown
    assert "clip49" not in shown
    every = fsmm("show", "--cache", cache, "--clips").stdout
    assert all(f"clip{i}" in every for i in range(50))
    assert "no label" in every
    found = json.loads(fsmm("show", "--cache", cache, "--json").stdout)
    assert len(found["clips"]) == 50
    assert {part: sum(c["split"] == part for c in found["classes"]) for part in ("base", "val", "novel")} == {
        "base": 2,
        "val": 2,
        "novel": 2,
    }


def test_rm_needs_yes_where_nobody_can_be_asked(cache: Path) -> None:
    said = fsmm("rm", "--cache", cache, "--dataset", "toy", code=2).stderr
    assert "Remove data set toy with 3 streams and 0 runs" in said
    assert "Add --yes" in said
    assert list_datasets(cache) == ["toy"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize(("answer", "left"), [("n\n", ["toy"]), ("\n", ["toy"]), ("y\n", [])])
def test_rm_asks_at_a_terminal(cache: Path, answer: str, left: list[str]) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fsmm", "cache", "rm", "--cache", str(cache), "--dataset", "toy"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as asked:
        os.write(ours, answer.encode())
        _, said = asked.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert list_datasets(cache) == left
    assert asked.returncode == (1 if left else 0), said
    assert ("Nothing was removed." in said) == bool(left)


def test_rm_says_what_it_removed_and_freed(cache: Path, tmp_path: Path) -> None:
    done = fsmm("rm", "--cache", cache, "--stream", "frame/net", "--yes")
    assert done.stdout.startswith("Removed stream frame/net: ")
    assert done.stdout.endswith("B freed.\n")
    assert [str(stream) for stream in list_streams(cache / "toy")] == ["audio/net", "word/toy"]
    (tmp_path / "clips.txt").write_text("clip1\n\nclip2\n")
    done = fsmm(
        "rm", "--cache", cache, "--clip", "clip0", "--clips-file", tmp_path / "clips.txt", "-y", "--json"
    )
    found = json.loads(done.stdout)
    assert (found["dataset"], found["removed"]) == ("toy", "3 clips of 50 (clip0, clip1, clip2)")
    assert len(Catalog.read(cache / "toy")) == 47
    (cache / "toy/runs/protonet-0a1b").mkdir(parents=True)
    (cache / "toy/runs/protonet-0a1b/metrics.json").write_text("{}")
    assert "Removed run protonet-0a1b" in fsmm("rm", "--cache", cache, "--run", "0a1b", "-y").stdout
    assert not (cache / "toy/runs/protonet-0a1b").exists()
    assert "Removed all runs (0)" in fsmm("rm", "--cache", cache, "--runs", "-y").stdout
    assert "Removed data set toy" in fsmm("rm", "--cache", cache, "--dataset", "toy", "-y").stdout
    assert os.listdir(cache) == []


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["rm", "--yes"], 2, "Name the dataset"),
        (["rm", "--yes", "--dataset", "toy", "--stream", "frame/nett"], 2, "Did you mean 'frame/net'"),
        (["rm", "--yes", "--clip", "clap1"], 2, "Unknown clip"),
        (["rm", "--yes", "--runs"], 1, "has no runs"),
        (["rm", "--yes", "--run", "x"], 2, "Unknown folder or run 'x'"),
        (["rm", "--yes", "--run", "x", "--stream", "frame/net"], 2, "cannot be combined"),
        (["rm", "--yes", "--clips-file", "nowhere.txt"], 2, "cannot be read"),
        (["rm", "--yes", "--clips-file", os.devnull], 2, "is a pipe or a device"),
        (["rm", "--yes", "--dataset", "../toy"], 2, "not usable as a folder"),
        (["show", "--label-set", "mood"], 2, "Unknown label set"),
        (["show", "--dataset", "nowhere"], 1, "is not in the cache"),
    ],
)
def test_wrong_use_gets_one_sentence_and_removes_nothing(
    cache: Path, words: list[str], code: int, sentence: str
) -> None:
    done = fsmm(*words, "--cache", cache, code=code)
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert len(list_streams(cache / "toy")) == 3
    assert len(Catalog.read(cache / "toy")) == 50
