"""Decoding: the right frames, upright and sharp, and the right sound, whatever the container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest

from fsmm.errors import DecodeError, UsageError
from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Sampling, TextNeed
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.decode import decode
from fsmm.extract.decoding.film import Unforeseen, counted, foretold
from fsmm.extract.decoding.media import open_media, read_once, video_stream
from fsmm.extract.decoding.pictures import Painter
from fsmm.extract.decoding.sampling import pick_frames

SMALL = FrameNeed(size=64)
SOUND = AudioNeed()
ONE = 1 << 16
EARLIEST = 1 << 30


def read(path: Path, *needs: FrameNeed | AudioNeed, **sampling: object) -> Decoded:
    return decode(Source(video=path), "clip", needs or (SMALL, SOUND), Sampling(**sampling))


def numbers(makers: ModuleType, decoded: Decoded, need: FrameNeed = SMALL) -> list[list[int]]:
    return [[makers.number(picture) for picture in window] for window in decoded.frames[need]]


def middles(count: int, segments: int) -> list[int]:
    """The TSN rule in frames: the middle of each of equal parts."""
    return [int((part + 0.5) * count / segments) for part in range(segments)]


@pytest.mark.parametrize("segments", [1, 3, 8])
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.mp4", {}),
        ("short-gop.mp4", {"options": {"g": "10"}}),
        ("open-gop.mp4", {"options": {"x264-params": "open-gop=1:keyint=8:bframes=3"}}),
        ("a.mkv", {"codec": "ffv1"}),
        ("a.webm", {"codec": "libvpx", "options": {"b": "400k"}}),
        ("a.mov", {"codec": "mjpeg", "pixel_format": "yuvj420p"}),
        ("a.ts", {"codec": "mpeg2video", "fps": 25, "options": {"b": "2M"}}),
    ],
)
def test_takes_the_middle_frame_of_equal_parts(
    makers: ModuleType, tmp_path: Path, name: str, form: dict, segments: int
) -> None:
    path = makers.video(tmp_path / name, **{"frames": 45, **form})
    decoded = read(path, segments=segments)
    assert numbers(makers, decoded) == [[number] for number in middles(45, segments)]
    assert decoded.notes == []


def test_frames_follow_time_not_count(makers: ModuleType, tmp_path: Path) -> None:
    """Of 60 frames, 50 pass in the first second and 10 in the next nine: parts are of equal time."""
    times = [20 * i for i in range(50)] + [1000 + 900 * i for i in range(10)]
    path = makers.video(tmp_path / "vfr.mp4", times=times)
    decoded = read(path, segments=5)
    # 10 s less what the last frame's length is not known to be: centres near 1, 3, 5, 7 and 9 s
    shown = [row[0] for row in numbers(makers, decoded)]
    end = times[-1] + float(np.median(np.diff(times)))
    centres = [(part + 0.5) / 5 * end for part in range(5)]
    assert shown == [sum(t <= centre for t in times) - 1 for centre in centres]
    assert decoded.facts.duration == pytest.approx(end / 1000, abs=0.05)


@pytest.mark.parametrize("options", [{"g": "12"}, {"x264-params": "open-gop=1:keyint=9:bframes=4"}])
def test_both_ways_to_the_frames_agree(makers: ModuleType, tmp_path: Path, options: dict[str, str]) -> None:
    """Jumping between key frames gives the same pixels as decoding every frame."""
    path = makers.video(tmp_path / "a.mp4", frames=60, options=options)
    with open_media(path) as container:
        stream = video_stream(container, 1)
        notes: list[str] = []
        reel = read_once(path=path, container=container, video=stream, audio=None, sound=None, notes=notes)
        wanted = [0, 7, 8, 9, 10, 31, 59]
        quick, steady = foretold(reel), counted(reel, notes)
        assert np.array_equal(quick.times, steady.times)
        assert quick.end == steady.end
        one = [(number, frame.to_ndarray()) for number, frame, _ in quick.show(wanted)]
        two = [(number, frame.to_ndarray()) for number, frame, _ in steady.show(wanted)]
    assert [number for number, _ in one] == [number for number, _ in two] == wanted
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, two))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_files_too_large_to_hold_are_read_again(
    makers: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = makers.video(
        tmp_path / name, frames=60, options={"g": "10"}, codec=codec, sound=440.0, audio_codec="mp2"
    )
    held = read(path)
    monkeypatch.setattr("fsmm.extract.decoding.media._HELD_BYTES", 100)
    again = read(path)
    assert np.array_equal(held.frames[SMALL], again.frames[SMALL])
    assert np.array_equal(held.audio[SOUND], again.audio[SOUND])
    assert held.facts == again.facts


def test_a_long_clip_is_spread_over_all_of_it(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "long.mp4", frames=180, fps=1, width=32, height=32)
    decoded = read(path, FrameNeed(size=32), segments=6)
    assert numbers(makers, decoded, FrameNeed(size=32)) == [[number] for number in middles(180, 6)]
    assert decoded.facts.duration == pytest.approx(180)


def test_windows_are_strided_and_stay_inside(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=40)
    pairs, blocks = FrameNeed(length=2, size=64), FrameNeed(segments=2, length=16, stride=2, size=48)
    decoded = read(path, pairs, blocks, segments=4)
    assert numbers(makers, decoded, pairs) == [[n, n + 1] for n in middles(40, 4)]
    early, late = np.array(numbers(makers, decoded, blocks))
    assert np.array_equal(early, np.arange(16) * 2)  # would begin at -4: shifted into the clip
    assert np.array_equal(late, np.arange(16) * 2 + 9)  # would end at 46
    assert decoded.frames[blocks].shape == (2, 16, 48, 48, 3)


def test_a_short_clip_repeats_its_last_frame(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=3)
    need = FrameNeed(segments=1, length=5, size=64)
    assert numbers(makers, read(path, need), need) == [[0, 1, 2, 2, 2]]


def test_a_film_is_preferred_to_a_picture_beside_it(tmp_path: Path, makers: ModuleType) -> None:
    """Animated AVIF holds both, and some programs write a title's picture as a large default stream."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        streams = [file.add_stream("libx264", rate=12) for _ in range(2)]
        for stream, side in zip(streams, (128, 64)):
            stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        for stream, side, frames in zip(streams, (128, 64), (1, 12)):
            for i in range(frames):
                frame = av.VideoFrame.from_ndarray(makers.numbered(i + 3, side, side), format="rgb24")
                frame.pts = i
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    with av.open(str(path)) as file:
        assert file.streams.video[0].disposition & av.stream.Disposition.default
    need = FrameNeed(segments=4, size=32)
    frames = decode(Source(video=path), "clip", (need,), Sampling()).frames[need]
    assert [makers.number(frame[0]) for frame in frames] == [4, 7, 10, 13]


def test_one_frame_serves_all_segments(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "one.mp4", frames=1)
    assert numbers(makers, read(path)) == [[0]] * 8


def test_random_places_depend_on_seed_and_clip_alone() -> None:
    times = np.arange(1000, dtype=np.int64)
    random = Sampling(position="random", seed=3)

    def drawn(need: FrameNeed, sampling: Sampling = random, clip: str = "a") -> np.ndarray:
        return pick_frames(times=times, end=1000, need=need, sampling=sampling, clip_id=clip)

    first = drawn(FrameNeed())
    assert np.array_equal(first, drawn(FrameNeed(size=32)))
    assert np.array_equal(first[:, 0], drawn(FrameNeed(length=3))[:, 1])
    assert not np.array_equal(first, drawn(FrameNeed(), clip="b"))
    assert not np.array_equal(first, drawn(FrameNeed(), Sampling(position="random", seed=4)))
    assert np.array_equal(first[:, 0] // 125, np.arange(8))  # each in its own segment
    places = np.array([drawn(FrameNeed(segments=1), clip=str(i))[0, 0] for i in range(400)])
    assert abs(places.mean() - 500) < 5 * 1000 / np.sqrt(12 * 400)


@pytest.mark.parametrize(
    ("matrix", "expected", "size"),
    [
        ([ONE, 0, 0, 0, ONE, 0], [0, 1, 2, 3], (96, 64)),
        ([0, ONE, 0, -ONE, 0, 0], [2, 0, 3, 1], (64, 96)),  # a quarter clockwise
        ([-ONE, 0, 0, 0, -ONE, 0], [3, 2, 1, 0], (96, 64)),
        ([0, -ONE, 0, ONE, 0, 0], [1, 3, 0, 2], (64, 96)),  # a quarter the other way
        ([-ONE, 0, 0, 0, ONE, 0], [1, 0, 3, 2], (96, 64)),  # mirrored
    ],
)
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_display_matrix_is_honoured(
    makers: ModuleType,
    tmp_path: Path,
    matrix: list[int],
    expected: list[int],
    size: tuple[int, int],
    resize: str,
) -> None:
    path = makers.video(
        tmp_path / "turned.mp4",
        frames=2,
        width=96,
        height=64,
        picture=makers.cornered,
        matrix=[*matrix, 0, 0, EARLIEST],
    )
    need = FrameNeed(size=40, resize=resize)
    decoded = read(path, need)
    assert makers.corners(decoded.frames[need][0, 0]) == expected
    assert (decoded.facts.width, decoded.facts.height) == size


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_no_mark_of_a_colour_space_loses_a_frame(pixel_format: str, resize: str) -> None:
    """HDR (PQ, BT.2020), reserved numbers and spaces that FFmpeg's scaler does not know give a picture."""
    painter = Painter(FrameNeed(size=32, resize=resize))
    for matrix in range(18):
        frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200, np.uint8)).reformat(format=pixel_format)
        frame.colorspace, frame.color_trc, frame.color_primaries = matrix, 16, 9
        picture = painter.paint(frame)
        assert picture.shape == (32, 32, 3)
        assert picture.mean() > 100


def test_wide_pixels_are_shown_wide(makers: ModuleType, tmp_path: Path) -> None:
    """Of 64 x 64 pixels, each twice as wide as high, the middle half of the columns is the square crop."""
    path = makers.video(
        tmp_path / "sar.mp4", frames=1, picture=_column_ramp, options={"crf": "1"}, pixel_shape=Fraction(2)
    )
    crop, squash = FrameNeed(size=32), FrameNeed(size=32, resize="squash")
    decoded = read(path, crop, squash)
    ramp = np.linspace(16, 235, 64)
    seen = decoded.frames[crop][0, 0].mean((0, 2))
    assert np.abs(seen - ramp[16:48]).max() < 6
    whole = decoded.frames[squash][0, 0].mean((0, 2))
    assert np.abs(whole - ramp.reshape(32, 2).mean(1)).max() < 6


def _column_ramp(_: int, width: int, height: int) -> np.ndarray:
    return (
        np.broadcast_to(np.linspace(16, 235, width)[None, :, None], (height, width, 3))
        .astype(np.uint8)
        .copy()
    )


def test_shrinking_does_not_alias(makers: ModuleType, tmp_path: Path) -> None:
    """A checkerboard of single pixels becomes even grey, not a pattern."""

    def checkers(_: int, width: int, height: int) -> np.ndarray:
        board = (np.arange(height)[:, None] + np.arange(width)) % 2 * 255
        return np.repeat(board[..., None], 3, 2).astype(np.uint8)

    path = makers.video(tmp_path / "c.mkv", frames=1, width=256, height=256, picture=checkers, codec="ffv1")
    need = FrameNeed(size=60)
    middle = read(path, need).frames[need][0, 0][4:-4, 4:-4].astype(float)
    assert middle.std() < 4
    assert abs(middle.mean() - 127.5) < 4


@pytest.mark.parametrize(("width", "height"), [(63, 37), (1, 1), (2, 300), (4000, 16), (5, 64)])
def test_any_shape_gives_squares(makers: ModuleType, tmp_path: Path, width: int, height: int) -> None:
    path = makers.video(
        tmp_path / "odd.mkv", frames=3, width=width, height=height, codec="ffv1", pixel_format="yuv444p"
    )
    needs = FrameNeed(size=50), FrameNeed(size=50, resize="squash")
    decoded = read(path, *needs)
    assert all(decoded.frames[need].shape == (8, 1, 50, 50, 3) for need in needs)
    assert (decoded.facts.width, decoded.facts.height) == (width, height)


def test_a_very_wide_picture_keeps_its_middle(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(
        tmp_path / "w.mkv", frames=1, width=600, height=60, picture=_column_ramp, codec="ffv1"
    )
    need = FrameNeed(size=30)
    seen = read(path, need).frames[need][0, 0].mean((0, 2))
    assert np.abs(seen - np.linspace(16, 235, 600)[270:330].reshape(30, 2).mean(1)).max() < 4


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("wanted", [16_000, 22_050])
def test_sound_keeps_its_pitch_length_and_loudness(
    makers: ModuleType, tmp_path: Path, rate: int, wanted: int
) -> None:
    path = makers.audio(tmp_path / "tone.wav", hertz=440.0, seconds=2.0, rate=rate)
    need = AudioNeed(rate=wanted)
    samples = read(path, need).audio[need]
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(2 * wanted, abs=wanted * 0.01)
    inner = samples[wanted // 4 : wanted // 4 + wanted]
    spectrum = np.abs(np.fft.rfft(inner))
    assert int(spectrum.argmax()) == 440
    assert np.abs(inner).max() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1", "hexadecagonal"])
def test_channels_become_their_mean(makers: ModuleType, tmp_path: Path, layout: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    tones = np.stack([makers.tone(300.0 + 100 * i, 1.0, 16_000) for i in range(channels)], 1)
    path = tmp_path / "channels.wav"
    with av.open(str(path), "w") as file:
        track = file.add_stream("pcm_s16le", rate=16_000, layout=layout)
        whole = (tones * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=layout)
        frame.sample_rate = 16_000
        file.mux(track.encode(frame))
        file.mux(track.encode(None))
    assert np.abs(read(path, SOUND).audio[SOUND] - tones.mean(1)).max() < 1e-3


def test_sound_is_capped_and_pictures_are_not(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=60, fps=10, sound=440.0)
    whole, capped = read(path), read(path, max_seconds=1.5)
    assert len(capped.audio[SOUND]) == 24_000
    assert np.array_equal(capped.audio[SOUND], whole.audio[SOUND][:24_000])
    assert np.array_equal(capped.frames[SMALL], whole.frames[SMALL])
    assert capped.facts == whole.facts


def test_facts(makers: ModuleType, tmp_path: Path) -> None:
    import hashlib

    path = makers.video(tmp_path / "a.mp4", frames=50, fps=25, width=80, height=48, sound=440.0)
    facts = read(path).facts
    assert (facts.width, facts.height, facts.has_video, facts.has_audio) == (80, 48, True, True)
    assert facts.fps == pytest.approx(25)
    assert facts.duration == pytest.approx(2.0, abs=0.05)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert decode(Source(video=path), "clip", (TextNeed(),), Sampling()).facts == facts  # whatever is needed


def test_stills_with_sound(makers: ModuleType, tmp_path: Path) -> None:
    images = tuple(
        makers.image(tmp_path / f"{i}.{kind}", makers.numbered(i)) for i, kind in ((5, "jpg"), (9, "png"))
    )
    source = Source(images=images, audio=makers.audio(tmp_path / "s.wav", seconds=1.0))
    decoded = decode(source, "clip", (SMALL, SOUND), Sampling(segments=4))
    assert numbers(makers, decoded) == [[5], [5], [9], [9]]
    assert len(decoded.audio[SOUND]) == 16_000
    assert decoded.facts.duration == pytest.approx(1.0)
    assert decoded.facts.has_video
    assert np.isnan(decoded.facts.fps)


def test_sound_from_elsewhere_replaces_the_videos_own(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=24, sound=440.0)
    other = makers.audio(tmp_path / "b.wav", hertz=1000.0, seconds=1.0)
    decoded = decode(Source(video=path, audio=other), "clip", (SMALL, SOUND), Sampling())
    assert int(np.abs(np.fft.rfft(decoded.audio[SOUND][:16_000])).argmax()) == 1000
    assert SMALL in decoded.frames


def test_threads_do_not_change_anything(makers: ModuleType, tmp_path: Path) -> None:
    source = Source(video=makers.video(tmp_path / "a.mp4", frames=60, options={"g": "10"}, sound=440.0))
    one, two = (decode(source, "clip", (SMALL, SOUND), Sampling(), threads=n) for n in (1, 2))
    assert np.array_equal(one.frames[SMALL], two.frames[SMALL])
    assert one.facts == two.facts
    assert one.notes == two.notes


def test_wishes_that_make_no_sense_are_refused(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=2)
    for need, sampling in (
        (FrameNeed(size=0), {}),
        (FrameNeed(resize="stretch"), {}),
        (FrameNeed(length=0), {}),
        (SMALL, {"segments": 0}),
        (SMALL, {"position": "end"}),
    ):
        with pytest.raises(UsageError):
            read(path, need, **sampling)


def test_a_clip_without_files_is_an_error() -> None:
    with pytest.raises(DecodeError, match="has no file"):
        decode(Source(), "lonely", (SMALL,), Sampling())


def test_packets_without_stamps_do_not_foretell(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=10)
    with open_media(path) as container:
        reel = read_once(
            path=path, container=container, video=video_stream(container, 1), audio=None, sound=None, notes=[]
        )
        reel.shown_at[3] = None
        with pytest.raises(Unforeseen):
            foretold(reel)
