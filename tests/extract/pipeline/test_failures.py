"""failures.jsonl: whole lines, the last one counts, torn lines do no harm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fsmm.errors import CacheError
from fsmm.extract.datasets.base import Source
from fsmm.extract.pipeline.failures import Failure, FailureLog


def test_what_is_appended_is_read(tmp_path: Path) -> None:
    log = FailureLog(tmp_path)
    assert log.read() == {}
    odd = Failure("line\nbreak \udcff é", "decode", "no\nreason", "/a\udcff.mp4")
    log.append([odd, Failure("b", "encode", "x", stream="frame/net")])
    log.append([Failure("b", "encode", "y", stream="frame/net"), Failure("b", "crash", "z")])
    assert log.read() == {
        (odd.id, ""): odd,
        ("b", "frame/net"): Failure("b", "encode", "y", stream="frame/net"),
        ("b", ""): Failure("b", "crash", "z"),
    }
    lines = log.path.read_text().splitlines()
    assert len(lines) == 4
    assert all({"id", "stage", "reason", "path"} <= json.loads(line).keys() for line in lines)


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    log = FailureLog(tmp_path)
    log.append([Failure("a", "decode", "r")])
    with open(log.path, "ab") as file:
        file.write(b'{"id": "torn", "sta')
    log.append([Failure("b", "decode", "r")])
    with open(log.path, "ab") as file:
        file.write(b'[1]\n{"id": 3, "stage": "x", "reason": "y"}\n{"other": 1}\n\xff\n')
    assert log.read().keys() == {("a", ""), ("b", "")}


def test_forgetting_drops_those_lines_and_repetitions_only(tmp_path: Path) -> None:
    log = FailureLog(tmp_path)
    log.append([Failure("a", "decode", "1"), Failure("b", "decode", "2"), Failure("b", "decode", "3")])
    log.append([Failure("a", "encode", "4", stream="flow/x")])
    log.forget({("a", ""), ("never", "there")})
    assert log.read() == {
        ("b", ""): Failure("b", "decode", "3"),
        ("a", "flow/x"): Failure("a", "encode", "4", stream="flow/x"),
    }
    assert len(log.path.read_text().splitlines()) == 2
    assert sorted(os.listdir(tmp_path)) == [".failures.lock", "failures.jsonl"]


def test_a_file_has_changed_when_its_size_or_time_has(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"12")
    source = Source(video=path)
    failure = Failure.of("a", source, "decode", "r")
    assert not failure.changed(source)
    os.utime(path, ns=(0, failure.mtime_ns + 1))
    assert failure.changed(source)
    path.write_bytes(b"123")
    os.utime(path, ns=(0, failure.mtime_ns))
    assert failure.changed(source)
    path.unlink()
    assert failure.changed(source)
    assert not Failure.of("a", source, "decode", "r").changed(source)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "failures.jsonl").mkdir()
    with pytest.raises(CacheError, match=r"failures\.jsonl"):
        FailureLog(tmp_path).append([Failure("a", "decode", "r")])


def test_clips_without_a_file_are_one_line_and_a_list(tmp_path: Path) -> None:
    log, clips = FailureLog(tmp_path), [f"post/{i}\n" for i in range(5000)]
    log.append([Failure("a", "decode", "r")])
    for _ in range(2):
        log.tell_missing(clips)
        assert len(log.path.read_text().splitlines()) == 2
    line = log.read()["", ""]
    assert line.stage == "missing"
    assert "5000 listed clips" in line.reason
    assert json.loads(Path(line.path).read_text()) == clips
    log.tell_missing(clips[:3])
    assert "3 listed clips" in log.read()["", ""].reason
    log.tell_missing([])
    assert log.read().keys() == {("a", "")}
    assert sorted(os.listdir(tmp_path)) == [".failures.lock", "failures.jsonl"]


def test_a_line_that_does_not_fit_on_the_disk_is_told_and_leaves_no_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FailureLog(tmp_path)
    log.append([Failure(id="a", stage="decode", reason="first")])
    before, write = log.path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:10]))  # as a full disk does
    with pytest.raises(CacheError, match="No space left on device"):
        log.append([Failure(id="b", stage="decode", reason="second")])
    assert log.path.read_bytes() == before
