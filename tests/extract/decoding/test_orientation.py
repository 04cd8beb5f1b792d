"""Pictures are upright, wherever their orientation stands: EXIF, and side data that PyAV has no name for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from heif_support import heic

from fsmm.errors import DecodeError
from fsmm.extract.contract import AudioNeed, Decoded, FrameNeed, Sampling
from fsmm.extract.datasets.base import Source
from fsmm.extract.decoding.decode import decode

SMALL = FrameNeed(size=40)
SOUND = AudioNeed()
# The stored corners (0 1 / 2 3) as they are shown under each EXIF orientation.
SHOWN = {
    1: [0, 1, 2, 3],
    2: [1, 0, 3, 2],
    3: [3, 2, 1, 0],
    4: [2, 3, 0, 1],
    5: [0, 2, 1, 3],
    6: [2, 0, 3, 1],
    7: [3, 1, 2, 0],
    8: [1, 3, 0, 2],
}


def picture(path: Path) -> Decoded:
    return decode(Source(images=(path,)), "clip", (SMALL,), Sampling(segments=1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
def test_exif_orientations_are_honoured(
    makers: ModuleType, tmp_path: Path, extension: str, orientation: int
) -> None:
    path, stored = tmp_path / f"photo.{extension}", makers.cornered(0, 96, 64)
    if extension == "tif":
        makers.tiff(path, stored, orientation)
    elif extension == "webp" and "libwebp" not in av.codecs_available:
        pytest.skip("this FFmpeg writes no WebP")
    else:
        path.write_bytes(makers.with_exif(makers.image(path, stored).read_bytes(), orientation))
    decoded = picture(path)
    assert makers.corners(decoded.frames[SMALL][0, 0]) == SHOWN[orientation]
    assert (decoded.facts.width, decoded.facts.height) == ((96, 64) if orientation < 5 else (64, 96))
    assert decoded.notes == []


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this FFmpeg writes no HEVC")
def test_a_heic_picture_is_read_and_one_in_tiles_is_refused(makers: ModuleType, tmp_path: Path) -> None:
    """FFmpeg gives a picture in tiles as several pictures, of which the first shows the upper left corner alone."""
    whole = heic(tmp_path / "whole.heic", makers.cornered(0, 256, 256))
    assert makers.corners(picture(whole).frames[SMALL][0, 0]) == SHOWN[1]
    tiled = heic(tmp_path / "tiled.heic", makers.cornered(0, 256, 256), rows=2, columns=2)
    for source in (Source(images=(tiled,)), Source(video=tiled)):
        with pytest.raises(DecodeError, match="is a picture in tiles, as phones write HEIC"):
            decode(source, "clip", (SMALL,), Sampling())


def test_a_photo_with_exif_and_its_sound(makers: ModuleType, tmp_path: Path) -> None:
    path = makers.image(tmp_path / "IMG_1.jpg", makers.cornered(0, 96, 64))
    path.write_bytes(makers.with_exif(path.read_bytes(), 6))
    source = Source(images=(path,), audio=makers.audio(tmp_path / "IMG_1.wav"))
    decoded = decode(source, "clip", (SMALL, SOUND), Sampling())
    assert len(decoded.frames[SMALL]) == 8
    assert len(decoded.audio[SOUND]) == 16_000


@pytest.mark.parametrize("container", ["avi", "mov", "mkv"])
@pytest.mark.parametrize("orientation", [1, 5])
def test_a_cameras_motion_jpeg_with_exif_in_each_frame(
    makers: ModuleType, tmp_path: Path, container: str, orientation: int
) -> None:
    path = tmp_path / f"DSCN0001.{container}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj422p"
        for index in range(40):
            frame = av.VideoFrame.from_ndarray(makers.cornered(0, 96, 64), format="rgb24")
            frame.pts = index
            for plain in stream.encode(frame):
                packet = av.Packet(makers.with_exif(bytes(plain), orientation))
                packet.stream, packet.time_base, packet.is_keyframe = stream, plain.time_base, True
                packet.pts, packet.dts, packet.duration = plain.pts, plain.dts, plain.duration
                file.mux(packet)
    decoded = decode(Source(video=path), "clip", (SMALL,), Sampling())
    assert [makers.corners(window[0]) for window in decoded.frames[SMALL]] == [SHOWN[orientation]] * 8
    assert decoded.facts.fps == pytest.approx(25)
    assert decoded.notes == []


def test_side_data_without_a_name_hides_no_other(makers: ModuleType, tmp_path: Path) -> None:
    """PyAV reads all side data at once, so that one kind it has no name for must not stop it."""
    path = makers.image(tmp_path / "a.png", makers.cornered(0, 96, 64))
    path.write_bytes(makers.with_exif(path.read_bytes(), 8))
    with av.open(str(path)) as file:
        frame = next(file.decode(video=0))
        kinds = [data.type for data in frame.side_data]
        matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)
    assert len(set(kinds)) == len(kinds) > 1
    assert (matrix[[0, 1, 3, 4]] >> 16).tolist() == [0, -1, 1, 0]


@pytest.mark.parametrize("bframes", [0, 3])
@pytest.mark.parametrize("only_first", [False, True])
@pytest.mark.parametrize(
    ("message", "expected"),
    [("rotate=90", [1, 3, 0, 2]), ("rotate=180", [3, 2, 1, 0]), ("flip=horizontal", [1, 0, 3, 2])],
)
def test_messages_of_key_pictures_turn_all_pictures(
    makers: ModuleType, tmp_path: Path, message: str, expected: list[int], only_first: bool, bframes: int
) -> None:
    """H.264 tells its orientation in messages (SEI) of key pictures, which hold for the pictures that follow."""
    plain = makers.video(
        tmp_path / "plain.mp4",
        frames=50,
        width=96,
        height=64,
        picture=makers.cornered,
        options={"g": "12", "bf": str(bframes)},
    )
    path = tmp_path / "turned.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as file:
        stream = source.streams.video[0]
        messages = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{message}", stream)
        copy = file.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            for done in messages.filter(packet) if number == 0 or not only_first else [packet]:
                done.stream = copy
                file.mux(done)
    need = FrameNeed(size=40, segments=25)
    decoded = decode(Source(video=path), "clip", (need,), Sampling())
    assert [makers.corners(window[0]) for window in decoded.frames[need]] == [expected] * 25
    one = decode(Source(video=path), "clip", (SMALL,), Sampling(segments=1))  # begins at a later key picture
    assert makers.corners(one.frames[SMALL][0, 0]) == expected
    assert decoded.facts.width == (64 if message == "rotate=90" else 96)
