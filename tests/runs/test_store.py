"""Runs on disk: what was written is what is read, or there is one sentence."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests_support import sentence_of

from fsmm.errors import FsmmError
from fsmm.machine import files
from fsmm.machine.digests import SUMS
from fsmm.machine.locks import turn_at
from fsmm.runs import store
from fsmm.runs.layout import FILES
from fsmm.runs.store import load_run, load_texts, save_run
from fsmm.studies.grid.store import is_stored

CONFIG = {"method": "protonet", "dataset": "toy", "protocol": {"n_way": 5, "k_shot": 1}}
ACCURACY = np.linspace(0, 1, 200).astype(np.float32)
ARRAYS = {"accuracy": ACCURACY, "confusion": np.eye(3, dtype=np.int64)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_run(tmp_path / "run", CONFIG, {"accuracy": 0.5}, ARRAYS)
    return tmp_path / "run"


def test_a_run_comes_back(folder: Path) -> None:
    config, metrics, arrays = load_run(folder)
    assert (config, metrics) == (CONFIG, {"accuracy": 0.5})
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)
    assert load_texts(folder) == (CONFIG, {"accuracy": 0.5})
    assert sorted(os.listdir(folder)) == sorted([*FILES, SUMS])


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_of_a_run_is_seen(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for byte in range(0, len(whole), max(len(whole) // 40, 1)):
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << (byte % 8)
        (folder / name).write_bytes(damaged)
        assert f"{name} changed after it ended" in sentence_of(load_run, folder)
        with pytest.raises(FsmmError):
            load_texts(folder)


CONTENTS = {
    "config.json": [
        b"",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b"\xff",
        b'{"method": 1, "dataset": "a", "protocol": {}}',
        b'{"method": "protonet", "dataset": "a", "protocol": {"n_way": "five"}}',
        b'{"method": "protonet", "dataset": "a", "protocol": {"colour": 1}}',
    ],
    "metrics.json": [b"", b"[]", b"{}", b"\xff\xfe", b'{"accuracy": "high"}', b"NaN"],
    "episodes.npz": [b"", b"PK\3\4x", b"\x93NUMPY", b"\x80\x04K\x01.", b"text"],
}


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("name", "content"), [(n, c) for n, contents in CONTENTS.items() for c in contents])
def test_a_damaged_run_is_one_sentence_with_digests_and_without(
    folder: Path, name: str, content: bytes, listed: bool
) -> None:
    (folder / name).write_bytes(content)
    if not listed:
        (folder / SUMS).unlink()
    assert str(folder) in sentence_of(load_run, folder)


def test_npz_files_of_other_content_are_one_sentence(folder: Path) -> None:
    (folder / SUMS).unlink()
    path = folder / "episodes.npz"
    for arrays in ({"other": ACCURACY}, {"accuracy": ACCURACY[None]}, {"accuracy": np.array(["high"])}):
        with open(path, "wb") as file:
            np.savez(file, **arrays)
        assert "episodes.npz" in sentence_of(load_run, folder)
    with open(path, "wb") as file:
        np.save(file, ACCURACY)
    assert "is no npz file" in sentence_of(load_run, folder)
    with open(path, "wb") as file:
        np.savez(file, accuracy=np.array([{}], object))
    sentence_of(load_run, folder)


@pytest.mark.parametrize("name", [*FILES, SUMS])
def test_missing_files_pipes_and_folders_are_one_sentence(folder: Path, name: str) -> None:
    (folder / name).unlink()
    if name == SUMS:
        assert load_run(folder)[0] == CONFIG, "runs of older releases have no list of digests"
    else:
        assert f"{name} is missing" in sentence_of(load_run, folder)
    (folder / name).mkdir()
    sentence_of(load_run, folder)
    (folder / name).rmdir()
    os.mkfifo(folder / name)
    assert "is a pipe" in sentence_of(load_run, folder)


def test_what_killed_writers_left_behind_goes_with_the_next_run(folder: Path) -> None:
    old, new = folder / ".metrics.json.7-0a.tmp", folder / ".metrics.json.8-0b.tmp"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    save_run(folder, CONFIG, {"accuracy": 0.5}, ARRAYS)
    assert not old.exists()
    assert new.exists(), "it may be of a writer at work"


def test_a_run_that_cannot_be_written_leaves_the_former_one_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = load_run(folder)[:2]
    for name in ("json_text", "file_sha256", "savez"):
        with monkeypatch.context() as patched:
            place = {"json_text": files, "file_sha256": store, "savez": np}[name]
            patched.setattr(place, name, full)
            with pytest.raises(OSError, match="No space left") as caught:
                save_run(folder, {**CONFIG, "method": "nearest"}, {"accuracy": 0.25}, ARRAYS)
        assert caught.value.filename == str(folder)
        assert load_run(folder)[:2] == before
        assert sorted(os.listdir(folder)) == sorted([*FILES, SUMS])


@pytest.mark.parametrize("moved", range(5))
def test_a_writer_killed_while_files_take_their_places_leaves_the_new_run_whole(
    folder: Path, tmp_path: Path, moved: int
) -> None:
    """The state of the disk after each of the moves of ``save_run``, by moving the files of another run by hand."""
    save_run(tmp_path / "new", {**CONFIG, "method": "nearest"}, {"accuracy": 0.25}, ARRAYS)
    (tmp_path / "new").rename(folder / ".written")
    for name in [*FILES, SUMS][:moved]:
        (folder / ".written" / name).rename(folder / name)
    assert is_stored(folder)
    config, metrics, _ = load_run(folder)
    assert (config["method"], metrics["accuracy"]) == ("nearest", 0.25)
    assert sorted(os.listdir(folder)) == sorted([*FILES, SUMS])


def test_a_half_copied_run_is_no_run(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in FILES[:2]:
        shutil.copy(folder / name, copy)
    assert "episodes.npz is missing" in sentence_of(load_run, copy)
    shutil.copy(folder / SUMS, copy)
    (copy / "episodes.npz").write_bytes((folder / "episodes.npz").read_bytes()[:300])
    assert "episodes.npz changed" in sentence_of(load_run, copy)
    assert "No such file" in sentence_of(load_run, tmp_path / "nowhere")


def test_the_files_of_two_runs_do_not_pass_for_one(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    save_run(other, {**CONFIG, "method": "nearest"}, {"accuracy": 0.5}, {"accuracy": 1 - ACCURACY})
    shutil.copy(folder / "config.json", other)
    assert "config.json changed" in sentence_of(load_run, other)


WRITER = """
import sys
from pathlib import Path
import numpy as np
from fsmm.runs.store import save_run

number = int(sys.argv[2])
config = {"method": "protonet", "dataset": "toy", "protocol": {}, "number": number}
for _ in range(100):
    accuracy = np.full(2000, number / 8)
    save_run(Path(sys.argv[1]), config, {"accuracy": number / 8}, {"accuracy": accuracy})
"""


def test_processes_that_store_a_run_in_one_folder_leave_one_of_them_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(i)]) for i in range(4)]
    met = 0
    while any(writer.poll() is None for writer in writers):
        if (folder / SUMS).exists():
            config, metrics, arrays = load_run(folder)
            assert metrics["accuracy"] == config["number"] / 8 == arrays["accuracy"].mean()
            met += 1
        time.sleep(0.005)
    assert [writer.returncode for writer in writers] == [0] * 4
    assert met
    assert sorted(os.listdir(folder)) == sorted([*FILES, SUMS])


def test_a_writer_waits_for_its_turn_and_readers_share_theirs(folder: Path) -> None:
    with turn_at(folder, shared=True):
        load_run(folder)
        command = [sys.executable, "-c", WRITER.replace("range(100)", "range(1)"), str(folder), "3"]
        writer = subprocess.Popen(command)
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(3)
        assert load_run(folder)[0] == CONFIG
    assert writer.wait(30) == 0
    assert load_run(folder)[0]["number"] == 3


def test_a_run_of_values_that_json_does_not_know_is_read_as_it_was_written(tmp_path: Path) -> None:
    save_run(tmp_path, {**CONFIG, "cache": Path("x")}, {"accuracy": 1, "t": (1, 2)}, {"accuracy": ACCURACY})
    config, metrics, _ = load_run(tmp_path)
    assert (config["cache"], metrics["t"]) == ("x", [1, 2])
    assert json.loads((tmp_path / "config.json").read_text()) == config
