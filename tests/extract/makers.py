"""Small real media files for tests, made with PyAV, whose content can be read back after decoding.

Reach them through the fixture ``makers`` (tests/extract/conftest.py), for instance

    makers.video(path, frames=30, fps=10, sound=440.0)
    makers.number(picture)      # which frame of it a decoded [S, S, 3] picture is

Every frame shows its own number as 16 black or white blocks, which survive scaling and lossy coding.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_IMAGES = {".png": ("png", "rgb24"), ".webp": ("libwebp", "bgra")}
_CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def numbered(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """RGB uint8 [height, width, 3]: 4 x 4 blocks, block b white where bit b of ``number`` is set."""
    bits = (number >> np.arange(16)) & 1
    rows = np.arange(height) * 4 // height
    columns = np.arange(width) * 4 // width
    grey = bits.reshape(4, 4)[rows[:, None], columns] * 200 + 28
    return np.repeat(grey[..., None], 3, 2).astype(np.uint8)


def number(picture: np.ndarray) -> int:
    """The number that a decoded picture of :func:`numbered` shows, looking at the middle of each block."""
    middle = (np.arange(4) * 2 + 1) * len(picture) // 8
    bits = picture[middle][:, middle].mean(-1) > 127
    return int((bits.reshape(-1) << np.arange(16)).sum())


def cornered(number: int = 0, width: int = 64, height: int = 64) -> np.ndarray:
    """RGB uint8 [height, width, 3]: red, green over blue, yellow, so that turns and mirrors show."""
    picture = np.zeros((height, width, 3), np.uint8)
    halves = [slice(0, None), slice(1, None)]
    rows, columns = (
        [slice(0, height // 2), slice(height // 2, None)],
        [slice(0, width // 2), slice(width // 2, None)],
    )
    for corner, colour in enumerate(_CORNERS):
        picture[rows[corner // len(halves)], columns[corner % len(halves)]] = colour
    return picture


def corners(picture: np.ndarray) -> list[int]:
    """Which of the four colours of :func:`cornered` stands top left, top right, bottom left, bottom right."""
    near, far = len(picture) // 4, 3 * len(picture) // 4
    found = [picture[y, x].astype(int) for y in (near, far) for x in (near, far)]
    return [int(np.abs(np.array(_CORNERS) - colour).sum(1).argmin()) for colour in found]


def tone(hertz: float, seconds: float, rate: int) -> np.ndarray:
    """A sine of half amplitude, float32 [samples]."""
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def video(
    path: Path,
    *,
    frames: int = 12,
    fps: int = 12,
    width: int = 64,
    height: int = 64,
    codec: str = "libx264",
    container: str | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    times: Sequence[int] | None = None,
    picture: Callable[[int, int, int], np.ndarray] = numbered,
    pixel_format: str = "yuv420p",
    pixel_shape: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    sound: float | None = None,
    rate: int = 44_100,
    audio_codec: str = "aac",
    seconds: float | None = None,
) -> Path:
    """Write a video and return its path.

    times: presentation time of each frame in milliseconds, for a variable rate. container: format name where
    the path's extension does not tell it. matrix: 9 numbers of a display matrix. sound: hertz of a tone
    beside it, ``seconds`` long (as long as the pictures).
    """
    count = len(times) if times is not None else frames
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as file:
        stream = file.add_stream(
            codec, rate=fps, options={"crf": "18", **(options or {})} if codec == "libx264" else options
        )
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if pixel_shape is not None:
            stream.codec_context.sample_aspect_ratio = pixel_shape
        if matrix is not None:
            stream.set_display_matrix(list(matrix))
        track = None
        if sound is not None:
            track = file.add_stream(audio_codec, rate=rate, layout="mono")
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
            frame.pts = times[index] if times is not None else index
            frame.time_base = Fraction(1, 1000) if times is not None else Fraction(1, fps)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if track is not None and sound is not None:
            length = (
                seconds if seconds is not None else (times[-1] / 1000 if times is not None else count / fps)
            )
            _mux_sound(file, track, tone(sound, length, rate), rate)
    return path


def audio(
    path: Path,
    hertz: float = 440.0,
    seconds: float = 1.0,
    rate: int = 16_000,
    codec: str = "pcm_s16le",
    cover: bool = False,
) -> Path:
    """Write a tone, with a picture of a cover attached where asked (.mp3), and return the path."""
    with av.open(str(path), "w") as file:
        track = file.add_stream(codec, rate=rate, layout="mono")
        picture = _cover(file) if cover else None
        _mux_sound(file, track, tone(hertz, seconds, rate), rate, first=picture)
    return path


def image(path: Path, picture: np.ndarray) -> Path:
    """Write an RGB picture [H, W, 3] as .png, .jpg or (without loss) .webp, and return the path."""
    codec, pixel_format = _IMAGES.get(path.suffix.lower(), ("mjpeg", "yuvj444p"))
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as file:
        stream = file.add_stream(codec, rate=1, options={"lossless": "1"} if codec == "libwebp" else {})
        stream.height, stream.width, stream.pix_fmt = picture.shape[0], picture.shape[1], pixel_format
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode(None))
    return path


def tiff(path: Path, picture: np.ndarray, orientation: int) -> Path:
    """Write an RGB picture [H, W, 3] as an uncompressed TIFF with an orientation tag, and return the path."""
    height, width = picture.shape[:2]
    data = np.ascontiguousarray(picture, np.uint8).tobytes()
    depths = struct.pack("<3H", 8, 8, 8)
    start = 8 + len(depths)
    short, long = 3, 4
    # (tag, type, count, value or place): the size, the bits of a sample, the kind, the data, the orientation ...
    tags = [(256, short, 1, width), (257, short, 1, height), (258, short, 3, 8), (259, short, 1, 1)]
    tags += [(262, short, 1, 2), (273, long, 1, start), (274, short, 1, orientation), (277, short, 1, 3)]
    tags += [(278, short, 1, height), (279, long, 1, len(data)), (284, short, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", start + len(data)) + depths + data + directory)
    return path


def exif(orientation: int) -> bytes:
    """EXIF data with this orientation alone, without the "Exif" mark that JPEG puts before it."""
    return struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0)


def with_exif(data: bytes, orientation: int) -> bytes:
    """The bytes of a JPEG, PNG or WebP picture with an EXIF orientation added."""
    block = exif(orientation)
    if data[:2] == b"\xff\xd8":
        block = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]
    if data[:4] == b"\x89PNG":
        chunk = b"eXIf" + block
        header = 8 + 25  # bytes of the signature and of the chunk IHDR
        added = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:header] + added + data[header:]
    assert data[:4] == b"RIFF"
    with av.open(io.BytesIO(data)) as file:
        width, height = file.streams.video[0].width, file.streams.video[0].height
    flags = struct.pack("<I", 8) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + webp_chunk(b"VP8X", flags) + data[12:] + webp_chunk(b"EXIF", block)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a RIFF file."""
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def cut(path: Path, share: float) -> Path:
    """Keep the first part of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _cover(file: av.container.OutputContainer) -> av.Packet:
    stream = file.add_stream("png", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb24"
    stream.disposition = av.stream.Disposition.attached_pic
    (packet,) = stream.encode(av.VideoFrame.from_ndarray(cornered(0, 32, 32), format="rgb24"))
    return packet


def _mux_sound(
    file: av.container.OutputContainer,
    track: av.AudioStream,
    samples: np.ndarray,
    rate: int,
    first: av.Packet | None = None,
) -> None:
    resampler = av.AudioResampler(
        format=track.codec_context.format,
        layout="mono",
        rate=rate,
        frame_size=track.codec_context.frame_size or 1024,
    )
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    packets = [packet for piece in [*pieces, None] for packet in track.encode(piece)]
    if first is not None:
        packets.insert(1, first)
    for packet in packets:
        file.mux(packet)
