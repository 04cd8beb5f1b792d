"""Files and folders that are whole or absent, whoever else writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fsmm.errors import UsageError
from fsmm.machine.files import read_table, read_text, whole_or_absent

WRITER = """
import sys
from pathlib import Path
from fsmm.machine.files import whole_or_absent

for _ in range(200):
    with whole_or_absent(Path(sys.argv[1])) as temporary:
        temporary.write_text(sys.argv[2] * 50_000)
"""


def test_two_writers_never_share_a_temporary_name_even_with_one_process_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 7)  # Two machines may write into one network folder.
    path = tmp_path / "file"
    with whole_or_absent(path) as first, whole_or_absent(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "the outer block ends last"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_block_that_raises_leaves_neither_the_file_nor_its_temporary_one(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "result"
    path.write_text("before")

    def write() -> None:
        with whole_or_absent(path) as temporary:
            (temporary.mkdir if kind == "folder" else temporary.touch)()
            raise RuntimeError("the block's own error")

    with pytest.raises(RuntimeError, match="own error"):
        write()
    assert [p.read_text() for p in tmp_path.iterdir()] == ["before"]


def test_a_reader_meets_one_writer_s_file_or_the_other_s(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), letter]) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.is_file():
            seen.add(path.read_text())
    assert all(writer.returncode == 0 for writer in writers)
    assert seen <= {"a" * 50_000, "b" * 50_000}
    assert os.listdir(tmp_path) == ["file"]


def test_threads_of_one_process_do_not_share_names_either(tmp_path: Path) -> None:
    path, errors = tmp_path / "file", []

    def write() -> None:
        try:
            for _ in range(50):
                with whole_or_absent(path) as temporary:
                    temporary.write_text("x" * 1000)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert path.read_text() == "x" * 1000


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", '{"x": {"k": 1, "k": 2}}'), ("a.yaml", "x: {k: 1, k: 2}")]
)
def test_a_table_with_one_key_twice_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"'k'.* twice"):
        read_table(tmp_path / name, "mapping file")


def test_a_text_is_read_up_to_a_size_and_without_its_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes("\ufeffgrün".encode())
    assert read_text(path, most=8) == "grün"
    with pytest.raises(ValueError, match="larger than 7 bytes"):
        read_text(path, most=7)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_text(path, most=8)
