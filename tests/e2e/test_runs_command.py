"""Runs on disk as a person meets them: listed, compared by name, damaged, foreign, and written by two at once."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests_support import synthetic_cache

from fsmm.machine.digests import SUMS

TRAINING = [
    *("--method", "relation", "--modalities", "frame", "--episodes", "60", "--n-query", "4"),
    *("--set", "train.steps=6", "--set", "train.evaluate_every=3", "--set", "train.evaluate_episodes=10"),
]


def fsmm(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fsmm", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with runs of two protocols and a study."""
    root = synthetic_cache(tmp_path_factory.mktemp("cache"), noise=1.5)
    brief = ("episode-eval", "--cache", root, "--episodes", 60)
    for modality in ("frame", "audio"):
        fsmm(*brief, "--method", "protonet", "--n-query", 4, "--modalities", modality)
    fsmm(*brief, "--method", "nearest", "--n-query", 3)
    fsmm("episode-eval", "--cache", root, *TRAINING, "--train-seeds", 2)
    return root


def test_runs_are_listed_with_what_tells_them_apart(cache: Path) -> None:
    found = json.loads(fsmm("runs", "--cache", cache, "--json").stdout)
    assert sorted((run["method"], *run["modalities"], run["settings"]["n_query"]) for run in found) == [
        ("nearest", "audio", "frame", "3"),
        ("protonet", "audio", "4"),
        ("protonet", "frame", "4"),
        ("relation", "frame", "4"),
        ("relation", "frame", "4"),
    ]
    shown = fsmm("runs", "--cache", cache).stdout
    assert "relation" in shown
    assert "n_query=3" in shown
    assert f"{100 * found[0]['accuracy']:.2f} %" in shown
    assert fsmm("runs", "--cache", cache.parent / "none", "--json").stdout.strip() == "[]"


def test_compare_takes_short_names_and_compares_what_can_be(cache: Path) -> None:
    names = [run["name"] for run in json.loads(fsmm("runs", "--cache", cache, "--json").stdout)]
    digests = [name.rpartition("-")[2][:6] for name in names if "protonet" in name]
    done = fsmm("compare", "--cache", cache, *digests, "near", "relation", "--json")
    found = json.loads(done.stdout)
    assert [run["seeds"] for run in found["runs"]] == [1, 1, 2], "two seeds of one training are one head"
    assert len(found["pairs"]) == 3
    assert [entry["name"].split("-")[0] for entry in found["left_out"]] == ["nearest"]
    assert "n_query is 3 and 4" in found["left_out"][0]["reason"]
    done = fsmm("compare", "--cache", cache, *digests, "near")
    assert "protonet" in done.stdout
    assert "free: needs no training" in done.stdout
    assert "n_query is 3 and 4" in done.stderr
    assert (
        "2 runs are called like 'protonet'"
        in fsmm("compare", "--cache", cache, "protonet", "near", code=2).stderr
    )


def damaged(content: bytes | None = None, at: float | None = None) -> Callable[[Path], Any]:
    """A change of a file: other content, or one flipped bit at a share of its length."""

    def change(path: Path) -> None:
        whole = bytearray(path.read_bytes())
        if at is not None:
            whole[int(at * len(whole))] ^= 8
        path.write_bytes(bytes(whole) if content is None else content)

    return change


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", damaged(b"[" * 100_000)),
        ("metrics.json", damaged(at=0.3)),
        ("episodes.npz", damaged(at=0.8)),
        ("episodes.npz", Path.unlink),
        (SUMS, damaged(b"")),
    ],
)
def test_a_damaged_run_is_one_sentence_and_never_a_figure(
    cache: Path, tmp_path: Path, name: str, change: Callable[[Path], Any]
) -> None:
    runs = sorted((cache / "toy" / "runs").glob("protonet-*"))
    for run in runs:
        shutil.copytree(run, tmp_path / run.name)
    change(tmp_path / runs[1].name / name)
    done = fsmm("compare", tmp_path / runs[0].name, tmp_path / runs[1].name, code=1)
    assert len(done.stderr.strip().splitlines()) == 1
    assert runs[1].name in done.stderr
    listed = fsmm("runs", tmp_path)
    assert runs[0].name in listed.stdout
    assert str(tmp_path / runs[1].name) in listed.stdout, "the sentence about the damaged run"


def test_an_edited_configuration_serves_another_run_and_no_longer_describes_its_own(
    cache: Path, tmp_path: Path
) -> None:
    run = next((cache / "toy" / "runs").glob("protonet-*"))
    shutil.copytree(run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["protocol"]["n_way"] = 3
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert "config.json changed" in fsmm("runs", tmp_path).stdout
    again = fsmm(
        "episode-eval", "--config", tmp_path / "run/config.json", "--out", tmp_path / "run", "--json"
    )
    assert json.loads(again.stdout)["protocol"]["n_way"] == 3
    assert "is not as it was when its run or tuning ended" in again.stderr
    assert json.loads(fsmm("runs", tmp_path, "--json").stdout)[0]["task"] == "3-way 1-shot"
    unedited = fsmm("episode-eval", "--config", run / "config.json", "--out", tmp_path / "other", "--json")
    assert unedited.stderr == ""


def test_a_flipped_bit_in_a_kept_head_is_said_and_changes_no_figure(cache: Path, tmp_path: Path) -> None:
    evaluation = ("episode-eval", "--cache", cache, *TRAINING, "--out", tmp_path / "run", "--json")
    first = json.loads(fsmm(*evaluation).stdout)
    again = fsmm(*evaluation)
    assert json.loads(again.stdout)["accuracy"] == first["accuracy"]
    assert again.stderr == ""
    path = tmp_path / "run" / "head.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", content[:8])[0]
    for byte in range(start + 3, len(content), 400):
        content[byte] ^= 1 << 6
    path.write_bytes(content)
    repaired = fsmm(*evaluation)
    assert "is damaged" in repaired.stderr
    assert "made anew" in repaired.stderr
    assert json.loads(repaired.stdout)["accuracy"] == first["accuracy"]
    assert fsmm(*evaluation).stderr == ""


def test_two_processes_that_evaluate_into_one_folder_leave_one_run_whole(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fsmm", "episode-eval", "--cache", str(cache), *TRAINING]
    command += ["--out", str(tmp_path / "run"), "--json", "--train-seed"]
    both = [subprocess.Popen([*command, seed], stdout=-1, stderr=-1, text=True) for seed in ("1", "2")]
    said = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    (listed,) = json.loads(fsmm("runs", tmp_path, "--json").stdout)
    assert listed["fault"] == ""
    seed = json.loads((tmp_path / "run" / "config.json").read_text())["train_seed"]
    kept = subprocess.run([*command, str(seed)], capture_output=True, text=True)
    assert json.loads(kept.stdout)["training"] is None, "the head is that of the run that was stored last"
    assert json.loads(kept.stdout)["accuracy"] == listed["accuracy"]
