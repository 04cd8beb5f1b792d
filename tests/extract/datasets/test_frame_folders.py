"""Folders of single frames are videos at a stated rate: in every data set, in decoding, in an extraction."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from extract_support import extracted, rows

from fsmm.errors import UsageError
from fsmm.extract.clip_files import digest_of, state_of
from fsmm.extract.contract import FrameNeed, Sampling
from fsmm.extract.datasets import load
from fsmm.extract.datasets.base import DatasetOptions, Source, Span
from fsmm.extract.datasets.frame_folders import frames_by_folder
from fsmm.extract.decoding.decode import decode

RATE = 12


def framed(folder: Path, makers: ModuleType, count: int = 24, form: str = "img_{:05d}.png") -> Path:
    """A folder of so many frames, each of which shows its number, counted from 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        makers.image(folder / form.format(number), makers.numbered(number))
    return folder


def touched(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def test_frames_are_in_the_order_of_their_numbers_and_flow_is_none() -> None:
    one = [f"a/v/frame{n}.jpg" for n in (10, 9, 1)] + ["a/v/flow_x_00001.jpg", "a/v/flow_y_00001.jpg"]
    two = ["a/w/000002.jpg", "a/w/000001.jpg"]
    others = ["a/z/img_1.jpg", "a/z/left_1.jpg", "b/cover.jpg", "1.jpg", "c/flow_u_1.jpg"]
    assert frames_by_folder([*one, *two, *others]) == {
        "a/v": ("a/v/frame1.jpg", "a/v/frame9.jpg", "a/v/frame10.jpg"),
        "a/w": ("a/w/000001.jpg", "a/w/000002.jpg"),
    }


@pytest.mark.parametrize(
    ("name", "files", "clips"),
    [
        (
            "folder",
            ["wave/a/img_00001.jpg", "wave/b.mp4", "run/c/0001.jpg"],
            ["run/c", "wave/a", "wave/b.mp4"],
        ),
        ("hmdb51", ["wave/Mr._Bean_wave_f_cm/00001.jpg"], ["wave/Mr._Bean_wave_f_cm"]),
        ("ucf101", ["YoYo/v_YoYo_g25_c05.avi/image_00001.jpg"], ["YoYo/v_YoYo_g25_c05"]),
        ("kinetics-100", ["air drumming/-VtLx_000012_000022/1.jpg"], ["air drumming/-VtLx_000012_000022"]),
        ("ekman-6", ["anger/7/frame1.png"], ["anger/7"]),
        ("utd-mhad", ["a1_s1_t1_color/0001.png"], ["a1_s1_t1"]),
        ("video-series", ["run/1/0001.jpg", "run/1.csv"], ["run/1"]),
    ],
)
def test_every_data_set_takes_folders_of_frames(
    name: str, files: list[str], clips: list[str], tmp_path: Path
) -> None:
    data = touched(tmp_path / "data", *files)
    if name == "video-series":
        (data / "run" / "1.csv").write_text("time,x\n0,1\n1,2\n")
    found = load(name, data, DatasetOptions(frame_rate=25.0))
    assert sorted(found.sources) == clips
    some = next(source for source in found.sources.values() if source.images)
    assert some.frame_rate == 25
    assert all(path.is_file() for path in some.images)
    for path, source in zip(found.catalog.path, found.sources.values()):
        assert not source.images or found.root / path == source.images[0].parent


def test_thumbnails_and_stills_with_sound_are_no_frames(tmp_path: Path) -> None:
    data = touched(tmp_path / "data", "wave/1.mp4", "wave/1.jpg", "wave/2.jpg", "wave/2.wav", "run/a/1.jpg")
    found = load("folder", data, DatasetOptions(frame_rate=25.0))
    assert sorted(found.sources) == ["run/a", "wave/1.mp4", "wave/2.jpg"]


def test_numbered_videos_of_something_something_may_be_folders(tmp_path: Path) -> None:
    data = touched(tmp_path / "data", "78687/00001.jpg", "78687/00002.jpg")
    (tmp_path / "train.list").write_text("train8/78687\n")
    found = load("ssv2-full", data, DatasetOptions(lists=tmp_path / "train.list", frame_rate=12.0))
    assert [len(source.images) for source in found.sources.values()] == [2]


def test_without_a_rate_the_sentence_names_the_option(tmp_path: Path) -> None:
    data = touched(tmp_path / "data", "wave/a/img_1.jpg", "wave/a/img_2.jpg")
    for name in ("folder", "hmdb51"):
        with pytest.raises(UsageError, match=r"such as 'wave/a' with 2; .* give --frame-rate"):
            load(name, data, DatasetOptions())
    touched(data, "wave/b.mp4")
    assert any("--frame-rate" in sentence for sentence in load("folder", data, DatasetOptions()).warnings)
    (data / "clips.csv").write_text("path,label\nwave/a,x\nwave/b.mp4,x\n")
    told = load("csv", data / "clips.csv", DatasetOptions())
    assert told.missing == ["wave/a"]
    assert "give --frame-rate" in told.warnings[0]
    with pytest.raises(UsageError, match="--frame-rate is 0; it must be above 0"):
        load("folder", data, DatasetOptions(frame_rate=0.0))
    with pytest.raises(UsageError, match="'demo' has no use for --frame-rate"):
        load("demo", tmp_path / "demo", DatasetOptions(frame_rate=12.0))


def test_frames_and_times_are_those_of_the_same_video(tmp_path: Path, makers: ModuleType) -> None:
    folder = framed(tmp_path / "v", makers)
    video = makers.video(
        tmp_path / "v.mp4", frames=24, fps=RATE, picture=lambda k, w, h: makers.numbered(k + 1, w, h)
    )
    need, sampling = FrameNeed(length=3, size=32), Sampling(segments=4)
    images = tuple(sorted(folder.iterdir()))
    one = decode(Source(images=images, frame_rate=float(RATE)), "c", [need], sampling)
    other = decode(Source(video=video), "c", [need], sampling)
    shown = [[[makers.number(p) for p in row] for row in found.frames[need]] for found in (one, other)]
    assert shown[0] == shown[1]
    np.testing.assert_allclose(one.times[need], other.times[need], atol=1e-9)
    assert (one.facts.duration, one.facts.fps) == pytest.approx((2.0, RATE))
    part = decode(Source(images=images, frame_rate=12.0, span=Span(1.0, 1.5)), "c", [need], sampling)
    assert {makers.number(p) for row in part.frames[need] for p in row} <= set(range(13, 19))
    stills = decode(Source(images=images), "c", [need], sampling)
    assert np.isnan(stills.facts.fps), "images without a rate tell no time"


def test_a_rate_is_a_part_of_what_a_clip_is(tmp_path: Path, makers: ModuleType) -> None:
    images = tuple(sorted(framed(tmp_path / "v", makers, 3).iterdir()))
    slow, fast = (Source(images=images, frame_rate=rate) for rate in (5.0, 25.0))
    assert digest_of(slow) != digest_of(fast)
    assert state_of(slow) != state_of(fast)


def test_an_extraction_of_frames_goes_on_and_sees_changes(tmp_path: Path, makers: ModuleType) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    for name in ("wave/a", "wave/b", "run/c"):
        framed(data / name, makers, 6, "{:06d}.png")
    makers.audio(data / "wave" / "a.wav", seconds=0.5)
    given = {"options": DatasetOptions(frame_rate=12.0)}
    streams = ("flow/dis-hof", "audio/logmel-mfcc")
    first = extracted(data, cache, *streams, **given)
    assert (first.done, first.failed) == (3, 0)
    folder = Path(first.folder)
    flows, sounds = rows(folder, streams[0]), rows(folder, streams[1])
    assert all(x is not None and x.shape == (8, 306) for x in flows.values())
    assert [clip for clip, x in sounds.items() if x is not None] == ["wave/a"]
    assert extracted(data, cache, *streams, **given).skipped == 3
    (data / "run" / "c" / "000003.png").unlink()
    again = extracted(data, cache, *streams, **given)
    assert (again.changed, again.done, again.skipped) == (1, 1, 2)
    other = extracted(data, cache, *streams, options=DatasetOptions(frame_rate=25.0))
    assert (other.changed, other.done) == (3, 3), "times and duration differ"
