"""The list of digests of a folder's files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fsmm.errors import FsmmError
from fsmm.machine.digests import SUMS, changed_files, read_sums, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "b.bin").write_bytes(bytes(range(256)) * 9000)
    write_sums(tmp_path, ["a.json", "b.bin"])
    return tmp_path


def test_the_list_holds_what_hashlib_finds(folder: Path) -> None:
    expected = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("a.json", "b.bin")
    }
    assert read_sums(folder) == expected
    assert changed_files(folder, ["a.json", "b.bin"]) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the system has no sha256sum")
def test_the_system_s_own_tool_reads_the_list(folder: Path) -> None:
    command = ["sha256sum", "--check", "--strict", SUMS]
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 0
    (folder / "a.json").write_text("2")
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 1


def test_changed_and_unlisted_files_are_named(folder: Path) -> None:
    (folder / "a.json").write_text("2")
    (folder / "c.json").write_text("3")
    assert changed_files(folder, ["a.json", "b.bin", "c.json"]) == ["a.json", "c.json"]
    (folder / SUMS).unlink()
    assert changed_files(folder, ["a.json"]) == []


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"nonsense\n", b"0" * 63 + b"  a.json\n", b"\n"])
def test_a_damaged_list_is_one_sentence(folder: Path, content: bytes) -> None:
    (folder / SUMS).write_bytes(content)
    with pytest.raises(FsmmError, match="list of digests") as caught:
        changed_files(folder, ["a.json"])
    assert "\n" not in str(caught.value)


def test_lists_that_are_no_files_are_one_sentence(folder: Path) -> None:
    (folder / SUMS).unlink()
    os.mkfifo(folder / SUMS)
    with pytest.raises(FsmmError, match="is a pipe"):
        read_sums(folder)
    (folder / SUMS).unlink()
    (folder / SUMS).mkdir()
    with pytest.raises(FsmmError, match="cannot be read"):
        read_sums(folder)
