"""Damage that decoding survives is told: a line of its own in failures.jsonl, and a count in the summary."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from extract_support import Tint, rows, spoil_pictures

import fsmm
from fsmm.extract.contract import Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.pipeline.report import ExtractReport
from fsmm.extract.pipeline.worker import Job, Setup, carry_out

FLOW, SOUND = "flow/dis-hof", "audio/logmel-mfcc"


def run(root: Path, *streams: str) -> ExtractReport:
    report: ExtractReport = fsmm.extract(
        "folder", root / "data", root / "cache", list(streams), quiet=True, workers=1
    )
    return report


def told(report: ExtractReport) -> list[dict[str, object]]:
    path = Path(report.folder) / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def concert(makers: ModuleType, tmp_path: Path) -> Path:
    """A folder with a video whose picture is destroyed and whose sound is whole, and one that is whole."""
    (tmp_path / "data" / "concert").mkdir(parents=True)
    for name in ("nopicture", "whole"):
        makers.video(tmp_path / "data" / "concert" / f"{name}.mp4", frames=50, fps=25, sound=400.0)
    spoil_pictures(tmp_path / "data" / "concert" / "nopicture.mp4")
    return tmp_path


def test_a_destroyed_picture_is_told_and_the_sound_is_used(concert: Path) -> None:
    report = run(concert, FLOW, SOUND)
    assert (report.done, report.failed, report.partial) == (2, 0, 1)
    assert "2 done, 1 of them in part" in report.summary()
    assert "failures.jsonl" in report.summary()
    (line,) = told(report)
    assert (line["id"], line["stage"], line["stream"]) == ("concert/nopicture.mp4", "partial", "")
    assert "video is damaged" in str(line["reason"])
    folder = Path(report.folder)
    assert rows(folder, SOUND)["concert/nopicture.mp4"] is not None
    assert rows(folder, FLOW)["concert/nopicture.mp4"] is None


def test_a_partial_clip_has_not_failed(concert: Path) -> None:
    """Later runs neither try it again nor leave it alone where a stream is added, and its line stays."""
    lines = told(run(concert, FLOW))
    again = run(concert, FLOW)
    assert (again.skipped, again.left_alone) == (2, 0)
    assert told(again) == lines
    more = run(concert, FLOW, SOUND)
    assert (more.done, more.partial, more.left_alone) == (2, 1, 0)
    assert told(more) == lines


def test_a_mended_file_loses_its_line(makers: ModuleType, concert: Path) -> None:
    run(concert, FLOW)
    makers.video(concert / "data" / "concert" / "nopicture.mp4", frames=40, sound=300.0)
    assert told(run(concert, FLOW, SOUND)) == []


def test_listed_clips_without_a_file_are_one_line(makers: ModuleType, tmp_path: Path) -> None:
    makers.video(tmp_path / "a.mp4", sound=400.0)
    table = tmp_path / "clips.csv"
    table.write_text("path,label\na.mp4,x\n" + "".join(f"gone{i}.mp4,y\n" for i in range(30)))
    report = fsmm.extract("csv", table, tmp_path / "cache", [SOUND], quiet=True, workers=1)
    assert report.missing == 30
    (line,) = told(report)
    assert (line["id"], line["stage"]) == ("", "missing")
    assert json.loads(Path(str(line["path"])).read_text()) == [f"gone{i}.mp4" for i in range(30)]
    table.write_text("path,label\na.mp4,x\n")
    after = fsmm.extract("csv", table, tmp_path / "cache", [SOUND], quiet=True, workers=1)
    assert (told(after), after.failures_file) == ([], "")
    assert not Path(str(line["path"])).exists()


def _cut(makers: ModuleType, folder: Path) -> Source:
    path = makers.video(folder / "a.mp4", frames=100, container_options={"movflags": "faststart"})
    return Source(video=makers.cut(path, 0.6))


def _scratched(makers: ModuleType, folder: Path) -> Source:
    path = makers.video(
        folder / "a.mp4", frames=90, options={"g": "10"}, container_options={"movflags": "faststart"}
    )
    data = bytearray(path.read_bytes())
    third = (len(data) - data.index(b"mdat")) // 3
    data[-2 * third : -third] = bytes(third)
    path.write_bytes(data)
    return Source(video=path)


def _spoilt_pictures(makers: ModuleType, folder: Path) -> Source:
    return Source(video=spoil_pictures(makers.video(folder / "a.mp4", frames=30, sound=400.0)))


def _spoilt_sound(makers: ModuleType, folder: Path) -> Source:
    path = makers.video(folder / "a.mkv", frames=50, sound=440.0, seconds=8.0, audio_codec="flac")
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:] = np.random.default_rng(0).integers(0, 256, len(data) - half, np.uint8).tobytes()
    path.write_bytes(data)
    return Source(video=path)


def _spoilt_sound_beside(makers: ModuleType, folder: Path) -> Source:
    sound = folder / "a.wav"
    sound.write_bytes(b"no")
    return Source(video=makers.video(folder / "a.mp4"), audio=sound)


def _spoilt_video_beside(makers: ModuleType, folder: Path) -> Source:
    video = folder / "a.mp4"
    video.write_bytes(b"no")
    return Source(video=video, audio=makers.audio(folder / "a.wav"))


def _spoilt_still(makers: ModuleType, folder: Path) -> Source:
    images = tuple(makers.image(folder / f"{i}.png", makers.numbered(i)) for i in range(2))
    images[1].write_bytes(images[1].read_bytes()[:60])
    return Source(images=images)


def _half_a_photo(makers: ModuleType, folder: Path) -> Source:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    return Source(images=(makers.cut(makers.image(folder / "a.jpg", noise), 0.5),))


def _cut_without_a_count(name: str) -> Callable[[ModuleType, Path], Source]:
    """A file whose end is missing, of a format that declares no number of frames."""

    def make(makers: ModuleType, folder: Path) -> Source:
        if name == "flac":
            return Source(video=makers.cut(makers.audio(folder / "a.flac", seconds=9.0, codec="flac"), 0.5))
        form = {"codec": "libvpx"} if name == "webm" else {"sound": 440.0}
        return Source(video=makers.cut(makers.video(folder / f"a.{name}", frames=100, **form), 0.5))

    return make


@pytest.mark.parametrize(
    ("damaged", "note"),
    [
        (_cut, "of the 100 frames it declares"),
        (_scratched, "video is damaged"),
        (_spoilt_pictures, "no frame of the video decodes"),
        (_spoilt_sound, r"'a\.mkv' ends after [\d.]+ of the 8\.0 s"),
        (_spoilt_sound_beside, r"'a\.wav'"),
        (_spoilt_video_beside, r"'a\.mp4'"),
        (_spoilt_still, r"'1\.png' holds no picture"),
        (_half_a_photo, r"'a\.jpg' decodes with errors"),
        *((_cut_without_a_count(name), "ends after .* that it declares") for name in ("mkv", "webm", "flac")),
    ],
)
def test_every_kind_of_note_leaves_the_worker(
    makers: ModuleType, tmp_path: Path, damaged: Callable[[ModuleType, Path], Source], note: str
) -> None:
    setup = Setup((Tint(),), Sampling(segments=8))
    outcome = carry_out(Job("clip", damaged(makers, tmp_path), (0,)), setup)
    assert outcome.stage == ""
    assert any(re.search(note, told) for told in outcome.notes)
