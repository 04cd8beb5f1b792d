"""Files that are cut off, or that were put one behind another: what FFmpeg passes over without a word is noted."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fsmm.errors import DecodeError
from fsmm.extract.contract import AudioNeed, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.decode import decode
from fsmm.extract.decoding.endings import ending_of

NEEDS = (FrameNeed(segments=2, size=32), AudioNeed())
FILMS = {
    "fast.mp4": ("libx264", "aac", {"movflags": "faststart"}),
    "fragments.mp4": ("libx264", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "a.mov": ("mpeg4", "pcm_s16le", {"movflags": "faststart"}),
    "a.mkv": ("libx264", "aac", {}),
    "a.webm": ("libvpx", "libopus", {}),
    "a.ts": ("libx264", "mp2", {}),
    "a.m2ts": ("libx264", "ac3", {}),
    "a.mpg": ("mpeg2video", "mp2", {}),
    "a.avi": ("mpeg4", "libmp3lame", {}),
    "a.flv": ("libx264", "aac", {}),
    "a.mxf": ("mpeg2video", "pcm_s16le", {}),
    "a.gif": ("gif", None, {}),
    "a.mjpeg": ("mjpeg", None, {}),
}
SOUNDS = {
    "a.wav": "pcm_s16le",
    "adpcm.wav": "adpcm_ima_wav",
    "a.mp3": "libmp3lame",
    "a.mp2": "mp2",
    "a.aac": "aac",
    "a.ac3": "ac3",
    "a.flac": "flac",
    "a.opus": "libopus",
    "a.aiff": "pcm_s16be",
    "a.au": "pcm_s16be",
    "a.caf": "pcm_s16le",
    "a.w64": "pcm_s16le",
    "a.mka": "flac",
}


@pytest.fixture(scope="module")
def files(makers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    pixel_formats = {"gif": "rgb8", "mjpeg": "yuvj420p"}
    for name, (codec, audio_codec, options) in FILMS.items():
        makers.video(
            folder / name,
            frames=50,
            fps=25,
            codec=codec,
            pixel_format=pixel_formats.get(codec, "yuv420p"),
            sound=300.0 if audio_codec else None,
            audio_codec=audio_codec or "aac",
            rate=48_000,
            container_options=options,
        )
    for name, codec in SOUNDS.items():
        makers.audio(folder / name, seconds=3.0, rate=48_000, codec=codec)
    return {name: (folder / name).read_bytes() for name in (*FILMS, *SOUNDS)}


def notes(folder: Path, name: str, data: bytes) -> list[str]:
    (folder / name).write_bytes(data)
    return decode(Source(video=folder / name), "clip", NEEDS, Sampling()).notes


@pytest.mark.parametrize("name", [*FILMS, *SOUNDS])
def test_a_file_cut_in_the_middle_is_noted_and_a_whole_one_is_not(
    tmp_path: Path, files: dict[str, bytes], name: str
) -> None:
    data = files[name]
    assert notes(tmp_path, name, data) == []
    for share in (0.5, 0.61, 0.77):
        # Between two packets of MPEG-PS nothing tells that more should follow, so that this cut lies inside of one.
        keep = int(len(data) * share) // 2048 * 2048 + 1000
        told = notes(tmp_path, name, data[:keep])
        assert told, share
        assert any("cut off" in note or "declares" in note or "damaged" in note for note in told)


def test_a_wav_file_whose_header_promises_more_is_noted_and_one_that_promises_nothing_is_not(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    data = files["a.wav"]
    (note,) = notes(tmp_path, "cut.wav", data[: len(data) // 2 // 4096 * 4096])
    assert "'cut.wav' is cut off" in note
    assert "bytes are missing at its end" in note
    place = data.index(b"data")
    for unknown in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f", b"\x00\x00\x00\x80"):  # as pipes leave it
        live = data[:4] + unknown + data[8 : place + 4] + unknown + data[place + 8 :]
        assert notes(tmp_path, "live.wav", live) == []


def test_mp3_files_with_and_without_a_header_for_the_whole(tmp_path: Path, files: dict[str, bytes]) -> None:
    data = files["a.mp3"]
    (note,) = notes(tmp_path, "cut.mp3", data[: len(data) // 2])
    assert "of the" in note
    assert "that it declares" in note
    mark = data.index(b"Info") if b"Info" in data else data.index(b"Xing")
    plain = data[:mark] + bytes(4) + data[mark + 4 :]
    assert notes(tmp_path, "plain.mp3", plain) == []
    assert notes(tmp_path, "tagged.mp3", plain + b"TAG" + bytes(125)) == []
    (cut,) = notes(tmp_path, "short.mp3", plain[: len(plain) - 50])
    assert "last frame is incomplete" in cut


def transport(count: int, *, open_end: bool) -> bytes:
    """A transport stream with one stream of pictures of no declared length, the last of which lacks its end or not."""
    packets = []
    for number in range(count):
        start, last = number % 10 == 0, number % 10 == 9
        payload = (b"\0\0\1\xe0\0\0" if start else b"") + bytes([number % 256]) * 184
        field = b"" if not last or (open_end and number == count - 1) else bytes([19, 0]) + b"\xff" * 18
        head = bytes([0x47, 0x41 if start else 0x01, 0x00, (0x30 if field else 0x10) | number % 16])
        packets.append((head + field + payload)[:188])
    return b"".join(packets)


def test_the_last_picture_of_a_transport_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(transport(40, open_end=False))
    assert ending_of(path) == ""
    path.write_bytes(transport(40, open_end=True))
    assert ending_of(path) == "seems to be cut off: its last picture has no end"
    path.write_bytes(transport(40, open_end=False)[:-100])
    assert ending_of(path) == "is cut off: its last packet is incomplete"


@pytest.mark.parametrize(
    "name", ["fast.mp4", "fragments.mp4", "a.mov", "a.flv", "a.wav", "a.aiff", "a.w64", "a.gif"]
)
def test_a_second_file_that_is_not_read_is_noted(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    data = files[name]
    (note,) = notes(tmp_path, name, data * 2)
    assert f"holds another file after its first {len(data):,} bytes, which is not read as such" in note


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.avi", "a.mp2", "a.opus"])
def test_a_second_file_that_is_read_is_no_fault(tmp_path: Path, files: dict[str, bytes], name: str) -> None:
    (tmp_path / name).write_bytes(files[name] * 2)
    decoded = decode(Source(video=tmp_path / name), "clip", NEEDS, Sampling())
    assert decoded.notes == []
    assert decoded.facts.duration > 3.9


def test_nonsense_has_no_ending(tmp_path: Path) -> None:
    """Heads of every form before random bytes: an answer, never an error."""
    random = np.random.default_rng(0)
    heads = [
        b"RIFF", b"RF64", b"FORM", b".snd", b"caff", b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0", b"FLV\x01",
        b"\x1a\x45\xdf\xa3", b"OggS", b"GIF89a", b"\0\0\0\x18ftyp", b"G", b"\xff\xfb\x90\x64", b"ID3", b"\x0b\x77", b"",
        bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), b"\xff\xd8\xff",
    ]  # fmt: skip
    for head in heads:
        for size in (0, 1, 7, 40, 3000):
            path = tmp_path / "a"
            path.write_bytes(head + random.bytes(size))
            assert isinstance(ending_of(path), str)


def jpeg_tiff(path: Path, makers: ModuleType) -> Path:
    """A TIFF whose tag of compression says JPEG; FFmpeg does not look at what is inside."""
    data = makers.tiff(path, makers.cornered(), 1).read_bytes()
    path.write_bytes(data.replace(_tag(259, 1), _tag(259, 7)))
    return path


def tiled_tiff(path: Path, makers: ModuleType) -> Path:
    """A TIFF of one tile: strips' tags become those of tiles."""
    data = makers.tiff(path, makers.cornered(), 1).read_bytes()
    path.write_bytes(data.replace(_tag(278, 64), _tag(322, 64)))
    return path


def _tag(number: int, value: int) -> bytes:
    return b"".join(part.to_bytes(size, "little") for part, size in ((number, 2), (3, 2), (1, 4), (value, 4)))


def test_pictures_that_would_come_out_black_are_refused(makers: ModuleType, tmp_path: Path) -> None:
    for make, form in ((jpeg_tiff, "compressed by JPEG"), (tiled_tiff, "divided into tiles")):
        path = make(tmp_path / "a.tif", makers)
        for source in (Source(video=path), Source(images=(path,))):
            with pytest.raises(
                DecodeError, match=f"is a TIFF {form}, which this FFmpeg cannot read; convert"
            ):
                decode(source, "clip", NEEDS, Sampling())
    fine = makers.tiff(tmp_path / "b.tif", makers.cornered(), 1)
    assert makers.corners(
        decode(Source(images=(fine,)), "clip", NEEDS, Sampling()).frames[NEEDS[0]][0, 0]
    ) == [0, 1, 2, 3]
