"""HEIC pictures as phones write them: one coded picture, or a grid of tiles (ISO/IEC 23008-12)."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

_OWN, _WHOLE = 2, 3  # places, from 1, of the sizes of a tile and of the whole among the properties


def heic(path: Path, picture: np.ndarray, *, rows: int = 1, columns: int = 1) -> Path:
    """Write an RGB picture [H, W, 3] as HEIC, in tiles where there are several, and return the path."""
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    tiles = [
        np.ascontiguousarray(picture[y * height : (y + 1) * height, x * width : (x + 1) * width])
        for y in range(rows)
        for x in range(columns)
    ]
    coded = [_coded(tile) for tile in tiles]
    numbers, grid = list(range(1, len(tiles) + 1)), len(tiles) + 1
    is_grid = len(tiles) > 1
    layout = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, picture.shape[1], picture.shape[0])
    kinds = [(number, b"hvc1") for number in numbers] + ([(grid, b"grid")] if is_grid else [])
    about = [(number, [1, _OWN]) for number in numbers] + ([(grid, [_WHOLE])] if is_grid else [])
    sizes = [struct.pack(">II", *size) for size in ((width, height), picture.shape[1::-1])]
    properties = [_box(b"hvcC", coded[0][0]), *(_full(b"ispe", size) for size in sizes)]
    links = [struct.pack(">HB", number, len(found)) + bytes(found) for number, found in about]
    items = [_full(b"infe", struct.pack(">HH4sB", number, 0, kind, 0), version=2) for number, kind in kinds]
    refers = struct.pack(f">HH{len(numbers)}H", grid, len(numbers), *numbers)
    fixed = [
        _full(b"pitm", struct.pack(">H", kinds[-1][0])),
        _full(b"iinf", struct.pack(">H", len(items)), *items),
        _full(b"iref", _box(b"dimg", refers)) if is_grid else b"",
        _box(b"iprp", _box(b"ipco", *properties), _full(b"ipma", struct.pack(">I", len(links)), *links)),
        _box(b"idat", layout) if is_grid else b"",
    ]
    kind = _box(b"ftyp", b"heic\0\0\0\0mif1heic")
    place = len(kind) + len(_meta(fixed, coded, 0, grid if is_grid else 0, len(layout))) + 8
    meta = _meta(fixed, coded, place, grid if is_grid else 0, len(layout))
    path.write_bytes(kind + meta + _box(b"mdat", *(data for _, data in coded)))
    return path


def _meta(
    fixed: Sequence[bytes], coded: Sequence[tuple[bytes, bytes]], place: int, grid: int, size: int
) -> bytes:
    """The box of what the file holds; place: where the first coded tile lies. grid: the grid's number, 0 for none."""
    entries = []
    for number, (_, data) in enumerate(coded, 1):
        entries.append(struct.pack(">HHHHII", number, 0, 0, 1, place, len(data)))
        place += len(data)
    if grid:
        entries.append(struct.pack(">HHHHII", grid, 1, 0, 1, 0, size))
    where = _full(b"iloc", struct.pack(">HH", 0x4400, len(entries)), *entries, version=1)
    return _full(b"meta", _full(b"hdlr", struct.pack(">I4s12xB", 0, b"pict", 0)), where, *fixed)


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, name) + body


def _full(name: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(name, struct.pack(">I", version << 24), *parts)


def _coded(picture: np.ndarray) -> tuple[bytes, bytes]:
    """A picture as HEVC: the decoder's configuration, and the coded picture."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as film:
        stream = film.add_stream(
            "libx265", rate=1, options={"x265-params": "log-level=none:keyint=1", "crf": "10"}
        )
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        film.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        film.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as film:
        packet = next(packet for packet in film.demux(video=0) if packet.size)
        return bytes(film.streams.video[0].codec_context.extradata), bytes(packet)
