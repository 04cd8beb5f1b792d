"""One folder of damaged and strange inputs: the run finishes, good clips are in, each bad one has a reason."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from types import ModuleType

import pytest
from extract_support import load_makers, rows

import fsmm

GOOD = "good"  # both streams
MUTE = "mute"  # pictures only
BLIND = "blind"  # sound only
BAD = "bad"  # a line in failures.jsonl
ASIDE = "aside"  # not listed; a warning names it
PASSED = "passed"  # not listed


def strange_folder(root: Path, makers: ModuleType) -> dict[str, str]:
    """Make the inputs in ``root/c``; from file name to what should become of it."""
    home = root / "c"
    home.mkdir(parents=True)
    expected: dict[str, str] = {}

    def put(name: str, fate: str) -> Path:
        expected[name] = fate
        return home / name

    makers.video(put("plain.mp4", GOOD), sound=300.0)
    makers.video(put("silent.mkv", MUTE))
    makers.video(put("Name with spaces, ünïcode\nand a newline.mp4", GOOD), sound=310.0)
    makers.video(put("UPPER.MP4", GOOD), sound=320.0)
    makers.video(put("matroska-inside.mp4", GOOD), container="matroska", sound=330.0)
    makers.video(put("one-frame.mp4", MUTE), frames=1)
    makers.video(put("odd-size.mp4", GOOD), width=50, height=98, sound=340.0)
    makers.video(home / os.fsdecode(b"latin-\xe9.mp4"), sound=335.0)
    expected["latin-\\xe9.mp4"] = GOOD  # as the dataset spells the id
    makers.audio(put("sound-in.mp4", BLIND), codec="aac")
    makers.cut(makers.video(put("tail-gone.mkv", GOOD), frames=60, sound=350.0), 0.7)
    _damage(makers.video(put("scratched.ts", GOOD), frames=60, sound=360.0))
    makers.cut(makers.video(put("index-gone.mp4", BAD), sound=370.0), 0.5)
    put("empty.mp4", BAD).write_bytes(b"")
    put("text.mp4", BAD).write_text("this is not a video")
    put("page.webm", BAD).write_text("<!doctype html><title>404</title>")
    put("noise.avi", BAD).write_bytes(random.Random(0).randbytes(20_000))
    put("zeros.mov", BAD).write_bytes(bytes(10_000))
    put("header-only.mp4", BAD).write_bytes(b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2")
    put("playlist.mp4", BAD).write_text("#EXTM3U\n#EXTINF:1,\nplain.mp4\n")
    put("subtitles.mkv", BAD).write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    os.symlink(home / "nowhere.mp4", put("dangling.mp4", ASIDE))
    os.symlink(home / "loop.mp4", put("loop.mp4", ASIDE))
    os.mkfifo(put("pipe.mp4", PASSED))
    put("notes.txt", ASIDE).write_text("about these clips")
    return expected


def _damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = random.Random(1).randbytes(600)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def extracted(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, str], Path, list[str], dict[str, str]]:
    """(fates expected, dataset folder, warnings, reasons of failure by clip id)."""
    root = tmp_path_factory.mktemp("strange")
    expected = strange_folder(root / "data", load_makers())
    report = fsmm.extract(
        "folder",
        root / "data",
        root / "cache",
        ["flow/dis-hof", "audio/logmel-mfcc"],
        workers=2,
        timeout=60,
        quiet=True,
    )
    log = Path(report.failures_file).read_text().splitlines() if report.failures_file else []
    told = [json.loads(line) for line in log]
    partial = {line["id"] for line in told if line["stage"] == "partial"}
    assert partial == {"c/tail-gone.mkv", "c/scratched.ts"}
    assert report.partial == len(partial)
    reasons = {line["id"]: line["reason"] for line in told if line["stage"] != "partial"}
    return expected, Path(report.folder), report.warnings, reasons


def test_there_are_at_least_twenty(extracted: tuple[dict[str, str], Path, list[str], dict[str, str]]) -> None:
    assert len(extracted[0]) >= 20


def test_each_input_met_its_fate(extracted: tuple[dict[str, str], Path, list[str], dict[str, str]]) -> None:
    expected, folder, _, reasons = extracted
    flow, sound = rows(folder, "flow/dis-hof"), rows(folder, "audio/logmel-mfcc")
    assert flow.keys() == sound.keys()

    def fate(name: str) -> str:
        clip = f"c/{name}"
        if clip in reasons:
            return BAD
        if clip not in flow:
            return PASSED if name == "pipe.mp4" else ASIDE
        return {(True, True): GOOD, (True, False): MUTE, (False, True): BLIND}[
            flow[clip] is not None, sound[clip] is not None
        ]

    assert {name: fate(name) for name in expected} == expected


def test_every_reason_says_something(
    extracted: tuple[dict[str, str], Path, list[str], dict[str, str]],
) -> None:
    expected, _, warnings, reasons = extracted
    for name, fate in expected.items():
        if fate == BAD:
            reason = reasons[f"c/{name}"]
            assert len(reason) > 20
            assert "\n" not in reason
        if fate == ASIDE:
            assert any(name in warning for warning in warnings), name
