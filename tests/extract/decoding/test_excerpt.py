"""A part of a file: the frames and the sound of [start, end), and nothing else, whatever the container."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source, Span
from fsmm.extract.decoding.decode import decode

EVERY = FrameNeed(segments=40, size=64)
SOUND = AudioNeed(rate=16_000)
FPS = 20


def read(path: Path, span: Span | None = None, **sampling: float) -> Decoded:
    return decode(Source(video=path, span=span), "clip", (EVERY, SOUND), Sampling(**sampling))


def shown(makers: ModuleType, decoded: Decoded) -> list[int]:
    """The different numbers that the pictures show, in order."""
    return sorted({makers.number(picture) for picture in decoded.frames[EVERY][:, 0]})


def stamps(path: Path) -> list[float]:
    """The time of each frame from the file's beginning, found by decoding all of them with PyAV alone."""
    with av.open(str(path)) as file:
        origin = max(file.start_time or 0, 0) / av.time_base
        return sorted(float(frame.pts * frame.time_base) - origin for frame in file.decode(video=0))


CONTAINERS = [
    ("a.mp4", "libx264", "aac"),
    ("a.mkv", "libx264", "flac"),
    ("a.ts", "libx264", "mp2"),
    ("a.avi", "mpeg4", "pcm_s16le"),
    ("a.webm", "libvpx", "libopus"),
    ("a.mpg", "mpeg2video", "mp2"),
    ("a.flv", "libx264", "aac"),
]


@pytest.mark.parametrize(("name", "codec", "audio_codec"), CONTAINERS)
def test_a_part_has_the_frames_and_the_sound_of_its_span(
    makers: ModuleType, tmp_path: Path, name: str, codec: str, audio_codec: str
) -> None:
    rate = 48_000
    fps = 25 if codec == "mpeg2video" else FPS
    path = makers.video(
        tmp_path / name, frames=6 * fps, fps=fps, codec=codec, sound=300.0, audio_codec=audio_codec, rate=rate
    )
    times = np.array(stamps(path))
    for span in (Span(1.0, 2.0), Span(0.0, 0.5), Span(3.3, 4.05), Span(4.5)):
        decoded = read(path, span)
        expected = np.flatnonzero((times >= span.start - 1e-6) & (times < span.end - 1e-6))
        assert shown(makers, decoded) == expected.tolist(), span
        length = min(span.end, 6.0) - span.start
        assert decoded.facts.duration == pytest.approx(length, abs=0.08)
        assert len(decoded.audio[SOUND]) / SOUND.rate == pytest.approx(length, abs=0.08)
        assert not decoded.notes


@pytest.mark.parametrize(
    ("name", "codec"), [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.mp3", "libmp3lame")]
)
def test_sound_is_cut_to_the_sample(tmp_path: Path, name: str, codec: str) -> None:
    """The part equals the samples of the whole from start to end: the noise differs everywhere."""
    path, rate = tmp_path / name, 16_000
    noise = np.random.default_rng(0).normal(0, 0.2, 8 * rate).astype(np.float32)
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(
            format=track.codec_context.format, layout="mono", rate=rate,
            frame_size=track.codec_context.frame_size or 1024,
        )  # fmt: skip
        frame = av.AudioFrame.from_ndarray(noise[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(track.encode(piece))
    whole = read(path).audio[SOUND]
    for start, end in ((0.0, 1.0), (2.5, 3.75), (5.00003, 5.5), (7.0, math.inf)):
        part = read(path, Span(start, end)).audio[SOUND]
        first, last = math.ceil(start * rate), min(math.ceil(min(end, 9.0) * rate), len(whole))
        assert len(part) == last - first
        np.testing.assert_allclose(part, whole[first:last], atol=2e-3)


def test_parts_of_one_file_are_different_clips_with_facts_of_their_own(
    makers: ModuleType, tmp_path: Path
) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=80, fps=FPS)
    one, two, whole = read(path, Span(0, 1)), read(path, Span(1, 2)), read(path)
    assert len({decoded.facts.sha256 for decoded in (one, two, whole)}) == 3
    assert one.facts.duration == pytest.approx(1.0)
    assert one.facts.fps == pytest.approx(FPS)
    assert whole.facts.duration == pytest.approx(4.0)


def test_a_span_outside_of_its_file_is_refused_and_one_that_ends_after_it_is_noted(
    makers: ModuleType, tmp_path: Path
) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=40, fps=FPS, sound=300.0)
    told = "line 7 of 'clips.csv'"
    with pytest.raises(DecodeError, match=r"starts at 2\.5 s, and 'a\.mp4' ends at 2\.\d+ s \(line 7 of"):
        read(path, Span(2.5, 4, told))
    (note,) = read(path, Span(1, 4, told)).notes
    assert "to end at 4 s" in note
    assert told in note
    assert not read(path, Span(1, 2.2, told)).notes  # The end is rounded.
    assert shown(makers, read(path, Span(1, 4))) == list(range(20, 40))


def test_a_span_between_two_frames_has_the_one_on_screen(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mkv", times=[0, 1000, 2000, 3000])
    assert shown(makers, read(path, Span(1.2, 1.7))) == [1]
    assert shown(makers, read(path, Span(1.2, 2.7))) == [2]


def test_a_span_of_a_file_without_times_is_refused(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.h264", frames=40, fps=FPS, container="h264")
    assert len(shown(makers, read(path))) > 20
    with pytest.raises(DecodeError, match="gives its frames no times"):
        read(path, Span(0.5, 1))


def test_sound_is_limited_from_the_start_of_the_part(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.audio(tmp_path / "a.wav", seconds=6.0)
    assert len(read(path, Span(2, 5), max_seconds=1.5).audio[SOUND]) == 24_000


def test_a_part_of_a_long_file_is_read_no_further_than_needed(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mkv", frames=100 * FPS, fps=FPS, width=32, height=32)
    data = bytearray(path.read_bytes())
    late = len(data) * 3 // 4
    data[late : late + 2000] = bytes(2000)
    path.write_bytes(data)
    assert not read(path, Span(10, 12)).notes
    assert read(path).notes


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")])
def test_parts_of_joined_files_count_from_the_first(
    makers: ModuleType, tmp_path: Path, name: str, codec: str
) -> None:
    """Two films of 3 s, one behind the other, with clocks of their own: the second begins at 3 s."""
    for number in (0, 1):
        makers.video(
            tmp_path / f"{number}{name}",
            frames=3 * FPS,
            fps=FPS,
            codec=codec,
            picture=lambda k, w, h, number=number: makers.numbered(k + 100 * number, w, h),
        )
    path = tmp_path / name
    path.write_bytes((tmp_path / f"0{name}").read_bytes() + (tmp_path / f"1{name}").read_bytes())
    assert shown(makers, read(path, Span(0.5, 1))) == list(range(10, 20))
    assert shown(makers, read(path, Span(2.5, 3.5))) == [*range(50, 60), *range(100, 110)]
    assert shown(makers, read(path, Span(4.5, 5.5))) == list(range(130, 150))
