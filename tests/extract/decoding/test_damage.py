"""Damaged, odd and hostile files: use what decodes, say what is wrong, and never fail in another way."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fsmm.errors import DecodeError
from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.decode import decode

SMALL = FrameNeed(size=64)
SOUND = AudioNeed()
CLIPS = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "clips"
PLAYLIST = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"


def read(path: Path) -> Decoded:
    return decode(Source(video=path), "clip", (SMALL, SOUND), Sampling())


def shown(makers: ModuleType, decoded: Decoded) -> list[int]:
    return [makers.number(picture) for picture in decoded.frames[SMALL][:, 0]]


def test_an_mp4_cut_off_before_its_index_is_refused(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.cut(makers.video(tmp_path / "a.mp4", frames=40), 0.7)
    with pytest.raises(DecodeError, match=r"'a\.mp4' .*cut off"):
        read(path)


def test_an_mp4_cut_off_after_its_index_gives_its_beginning(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(
        tmp_path / "a.mp4", frames=100, fps=25, sound=440.0, container_options={"movflags": "faststart"}
    )
    decoded = read(makers.cut(path, 0.6))
    frames = shown(makers, decoded)
    assert frames == sorted(frames)
    assert len(set(frames)) == 8  # spread over what is there, not over what is declared
    assert 30 < frames[-1] < 90
    # The file ends after .6 of its bytes; frames differ in size, so the share of the time is near that only.
    assert 0.4 < decoded.facts.duration / 4.0 < 0.9
    assert any("of the 100 frames it declares" in note for note in decoded.notes)


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi"])
def test_other_containers_cut_off_give_their_beginning(makers: ModuleType, tmp_path: Path, name: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = makers.video(tmp_path / name, frames=100, fps=25, codec=codec, sound=440.0, audio_codec="mp2")
    whole = shown(makers, read(path))
    frames = shown(makers, read(makers.cut(path, 0.5)))
    assert frames == sorted(frames)
    assert 20 < frames[-1] < whole[-1] - 20


def test_damage_in_the_middle_is_stepped_over(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(
        tmp_path / "a.mp4", frames=120, options={"g": "10"}, container_options={"movflags": "faststart"}
    )
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat")
    third = (len(data) - start) // 3
    data[start + third : start + 2 * third] = bytes(third)
    path.write_bytes(data)
    decoded = read(path)
    frames = shown(makers, decoded)
    assert frames[0] < 40
    assert frames[-1] > 80
    assert any("video is damaged" in note for note in decoded.notes)


def test_sound_that_fails_half_way_gives_what_was_read(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mkv", frames=50, fps=25, sound=440.0, seconds=8.0, audio_codec="flac")
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half:] = np.random.default_rng(0).integers(0, 256, len(data) - half, np.uint8).tobytes()
    path.write_bytes(data)
    decoded = read(path)
    assert 16_000 < len(decoded.audio[SOUND]) < 7 * 16_000
    assert np.isfinite(decoded.audio[SOUND]).all()
    assert np.abs(decoded.audio[SOUND]).max() <= 1
    assert SMALL in decoded.frames


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"this is a text, not a video\n" * 50, "FFmpeg knows"),
        (b"\x00" * 5000, "FFmpeg knows"),
        (b"<html><body>404 Not Found</body></html>", "FFmpeg knows"),
        (b"1\n00:00:01,000 --> 00:00:02,000\nHello\n\n", "neither video nor sound|FFmpeg knows"),
    ],
)
def test_files_that_are_no_media_say_so(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DecodeError, match=reason):
        read(path)


def test_playlists_reach_no_other_file(makers: ModuleType, tmp_path: Path) -> None:
    secret = makers.video(tmp_path / "secret.ts", frames=30, codec="mpeg2video", fps=25)
    assert SMALL in read(secret).frames
    for text in (
        PLAYLIST.format(secret),
        PLAYLIST.format("secret.ts"),
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ):
        path = tmp_path / "clip.mp4"
        path.write_text(text)
        with pytest.raises(DecodeError):
            read(path)


def test_paths_that_cannot_be_opened_say_why(tmp_path: Path) -> None:
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    pipe = tmp_path / "pipe.mp4"
    os.mkfifo(pipe)
    for path, reason in (
        (tmp_path / "absent.mp4", "No such file"),
        (loop, "symbolic links"),
        (tmp_path, "not a regular file"),
        (pipe, "not a regular file"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(DecodeError, match=reason):
            read(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_says_so(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.video(tmp_path / "a.mp4", frames=2)
    path.chmod(0)
    with pytest.raises(DecodeError, match="Permission denied"):
        read(path)


def test_an_animated_webp_says_what_it_is(makers: ModuleType, tmp_path: Path) -> None:
    flags = bytes([2, 0, 0, 0]) + (63).to_bytes(3, "little") * 2  # an animation of 64 x 64 pixels
    body = b"WEBP" + makers.webp_chunk(b"VP8X", flags) + makers.webp_chunk(b"ANIM", bytes(6))
    path = tmp_path / "sticker.webp"
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)
    for source in (Source(video=path), Source(images=(path,))):
        with pytest.raises(DecodeError, match=r"'sticker\.webp' is an animated WebP.*convert it"):
            decode(source, "clip", (SMALL,), Sampling())
    sound = makers.audio(tmp_path / "sticker.wav")
    decoded = decode(Source(images=(path,), audio=sound), "clip", (SMALL, SOUND), Sampling())
    assert SOUND in decoded.audio
    assert len(decoded.notes) == 1
    assert "animated WebP" in decoded.notes[0]


def test_no_sound(makers: ModuleType, tmp_path: Path) -> None:
    decoded = read(makers.video(tmp_path / "a.mp4", frames=5))
    assert not decoded.facts.has_audio
    assert SOUND not in decoded.audio
    assert SMALL in decoded.frames


@pytest.mark.parametrize("cover", [False, True])
def test_no_video_even_with_a_cover(makers: ModuleType, tmp_path: Path, cover: bool) -> None:
    path = makers.audio(tmp_path / "a.mp3", rate=44_100, codec="libmp3lame", cover=cover)
    decoded = read(path)
    assert decoded.facts.has_audio
    assert not decoded.facts.has_video
    assert SMALL not in decoded.frames
    assert len(decoded.audio[SOUND]) == pytest.approx(16_000, rel=0.1)


@pytest.mark.parametrize(
    "name",
    [
        "wrong.jpg",
        "no extension",
        "two\nlines.mp4",
        "日本.mp4",
        "100%d.mp4",
        "-i.mp4",
        "http:a.mp4",
        b"\xff\xfe.mp4",
    ],
)
def test_the_name_plays_no_part(makers: ModuleType, tmp_path: Path, name: str | bytes) -> None:
    plain = makers.video(tmp_path / "a.mkv", frames=9, sound=440.0)
    odd = tmp_path / os.fsdecode(name)
    try:
        odd.write_bytes(plain.read_bytes())
    except OSError:
        pytest.skip("this file system cannot hold the name")
    one, two = read(plain), read(odd)
    assert np.array_equal(one.frames[SMALL], two.frames[SMALL])
    assert np.array_equal(one.audio[SOUND], two.audio[SOUND])
    odd.write_bytes(b"")
    with pytest.raises(DecodeError) as caught:
        read(odd)
    assert "\n" not in str(caught.value)
    str(caught.value).encode("utf-8")


def test_a_damaged_video_leaves_the_sound_beside_it(makers: ModuleType, tmp_path: Path) -> None:
    broken = tmp_path / "a.mp4"
    broken.write_bytes(b"no")
    sound = makers.audio(tmp_path / "a.wav")
    decoded = decode(Source(video=broken, audio=sound), "clip", (SMALL, SOUND), Sampling())
    assert SOUND in decoded.audio
    assert "a.mp4" in decoded.notes[0]
    broken_sound = decode(
        Source(video=makers.video(tmp_path / "b.mp4"), audio=broken), "clip", (SMALL, SOUND), Sampling()
    )
    assert SMALL in broken_sound.frames
    assert not broken_sound.facts.has_audio


def test_ffmpeg_is_silent(makers: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = makers.video(
        tmp_path / "a.mp4", frames=60, sound=440.0, container_options={"movflags": "faststart"}
    )
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(makers.cut(path, 0.6))
    assert capfd.readouterr() == ("", "")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_damage_never_fails_in_another_way(
    makers: ModuleType, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes changed or cut anywhere: a whole result, or a DecodeError."""
    folder = tmp_path_factory.getbasetemp()
    source = folder / f"source.{data.draw(st.sampled_from(['mp4', 'mkv', 'avi']))}"
    if not source.exists():
        codec = "mpeg4" if source.suffix == ".avi" else "libx264"
        makers.video(source, frames=12, sound=440.0, codec=codec, audio_codec="libmp3lame")
    content = bytearray(source.read_bytes())
    for _ in range(data.draw(st.integers(1, 30))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.integers(len(content) // 2, len(content)))
    broken = folder / f"broken{source.suffix}"
    broken.write_bytes(content[:keep])
    try:
        decoded = read(broken)
    except DecodeError:
        return
    assert decoded.facts.has_video == (SMALL in decoded.frames)
    assert all(frames.shape == (8, 1, 64, 64, 3) for frames in decoded.frames.values())
    assert decoded.facts.has_audio or SOUND not in decoded.audio
    assert all(np.isfinite(samples).all() for samples in decoded.audio.values())


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
class TestRealClips:
    """15 real short files, some of them awkward."""

    def test_all_decode(self) -> None:
        for path in sorted(p for p in CLIPS.rglob("*") if p.suffix in (".mp4", ".avi", ".wav")):
            decoded = read(path)
            assert decoded.facts.has_video == (path.suffix != ".wav"), path.name
            assert decoded.facts.has_audio == (SOUND in decoded.audio), path.name
            for frames in decoded.frames.values():
                assert frames.std() > 5, path.name

    @pytest.mark.parametrize("pattern", ["hmdb51_*cartwheel*.avi", "WUzgd7C1pWA.mp4", "v_Soccer*g23*.avi"])
    def test_frames_are_those_of_plain_decoding(self, pattern: str) -> None:
        """OpenCV reads every frame in turn; ours are the nearest of them to where they should be."""
        cv2 = pytest.importorskip("cv2")
        (path,) = CLIPS.rglob(pattern)
        capture = cv2.VideoCapture(str(path))
        plain = []
        while (grabbed := capture.read())[0]:
            plain.append(
                cv2.resize(grabbed[1], (64, 64), interpolation=cv2.INTER_AREA)[..., ::-1].astype(float)
            )
        need = FrameNeed(size=64, resize="squash")
        taken = decode(Source(video=path), "clip", (need,), Sampling()).frames[need][:, 0].astype(float)
        count = len(plain)
        for part, picture in enumerate(taken):
            expected = int((part + 0.5) * count / 8)
            distance = [np.abs(picture - plain[i]).mean() for i in range(count)]
            assert distance[expected] <= min(distance) + 0.5, (
                path.name,
                part,
                expected,
                int(np.argmin(distance)),
            )
