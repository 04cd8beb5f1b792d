"""What a media file's structure says about its end: cut off, or followed by another file that FFmpeg does not read.

FFmpeg takes a file that ends early for a short one in many formats. Their headers, or the sizes of their parts, tell.
Only headers of parts are read, and what they declare is merely compared with the file's size.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from .frames_of_sound import missing_sound
from .transport import is_transport, missing_packets

_SLIGHT = 64  # bytes; some programs write sizes that are wrong by the size of a header
_PLACEHOLDER = 0x7FFFF000  # bytes; programs that write to a pipe declare such a size, or a larger one
_PARTS = 1 << 20  # the most parts of a file that are looked at
_TAIL = 1 << 16
_MP4 = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot", b"styp")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_MARK, _PART_CUT = "the mark of its end is missing", "is cut off: its last part is incomplete"
_Check = Callable[[BinaryIO, int], str]


def ending_of(path: Path) -> str:
    """What is wrong with a file's end, as the rest of a sentence about the file; "" for nothing, or if unknown."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(16)
            check = _check_for(head, file)
            return check(file, size) if check is not None else ""
    except (OSError, ValueError):
        return ""


def _check_for(head: bytes, file: BinaryIO) -> _Check | None:
    for magic, check in _CHECKS:
        if head.startswith(magic):
            return check
    if head[4:8] in _MP4:
        return _mp4
    if is_transport(file):
        return missing_packets
    return missing_sound


def _cut(missing: int) -> str:
    return f"is cut off: {missing:,} bytes are missing at its end" if missing > _SLIGHT else ""


def _followed(after: int) -> str:
    return f"holds another file after its first {after:,} bytes, which is not read as such; divide the file"


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _riff(file: BinaryIO, size: int) -> str:
    """WAV, AVI and AIFF: chunks RIFF or FORM, of which AVI may have several."""
    place = 0
    while head := _read(file, place, 36):
        if not head.startswith((b"RIFF", b"RIFX", b"RF64", b"FORM")) or len(head) < 12:
            return ""
        if place and head[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
            return _followed(place)
        length = int.from_bytes(head[4:8], "big" if head.startswith((b"RIFX", b"FORM")) else "little")
        if head.startswith(b"RF64"):
            length = int.from_bytes(head[20:28], "little") if head[12:16] == b"ds64" else 0
        elif length >= _PLACEHOLDER:
            return ""
        if not length or head[8:12] == b"WEBP":
            return ""
        place += 8 + length + length % 2
        if place > size:
            return _cut(place - size)
    return ""


def _au(file: BinaryIO, size: int) -> str:
    start, length = (int.from_bytes(_read(file, at, 4), "big") for at in (4, 8))
    return "" if length >= _PLACEHOLDER else _cut(start + length - size)


def _caf(file: BinaryIO, size: int) -> str:
    place = 8
    for _ in range(_PARTS):
        head = _read(file, place, 12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if len(head) < 12 or length < 0:
            return ""
        place += 12 + length
        if place > size:
            return _cut(place - size)
    return ""


def _by_guid(file: BinaryIO, size: int) -> str:
    """W64, and ASF with its children WMV and WMA: parts of a name of 16 bytes and a size, W64's inside one part."""
    place = 0
    for _ in range(_PARTS):
        head = _read(file, place, 24)
        if len(head) < 24:
            return ""
        if place and head[:16] == _W64:
            return _followed(place)
        length = int.from_bytes(head[16:], "little")
        if length < 24:  # A live stream declares no size.
            return ""
        place += length + (-length % 8 if head[:16] == _W64 else 0)
        if place > size:
            return _cut(place - size)
    return ""


def _mp4(file: BinaryIO, size: int) -> str:
    place = 0
    for _ in range(_PARTS):
        head = _read(file, place, 16)
        if len(head) < 8:
            return ""
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if kind == b"ftyp" and place and _has_part(file, place, size, b"moov"):
            return _followed(place)
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if length < 8:  # 0 stands for the rest of the file.
            return ""
        place += length
        if place > size:
            return _cut(place - size)
    return ""


def _has_part(file: BinaryIO, place: int, size: int, wanted: bytes) -> bool:
    """Whether a part of that kind stands at ``place`` or follows."""
    while place < size:
        head = _read(file, place, 16)
        length = (
            int.from_bytes(head[8:], "big") if head[:4] == b"\0\0\0\1" else int.from_bytes(head[:4], "big")
        )
        if head[4:8] == wanted:
            return True
        if length < 8:
            return False
        place += length
    return False


def _matroska(file: BinaryIO, size: int) -> str:
    place = 4
    length, width = _ebml_size(_read(file, place, 8))
    place += width + length
    if _read(file, place, 4) != _SEGMENT:
        return ""
    length, width = _ebml_size(_read(file, place + 4, 8))
    unknown = length == (1 << 7 * width) - 1
    return "" if unknown else _cut(place + 4 + width + length - size)


def _ebml_size(data: bytes) -> tuple[int, int]:
    """A size of EBML, and the number of bytes that it takes. Raises ValueError where there is none."""
    width = 9 - data[0].bit_length() if data and data[0] else 9
    if width > 8 or len(data) < width:
        raise ValueError("no size")
    return int.from_bytes(data[:width], "big") - (1 << 7 * width), width


def _ogg(file: BinaryIO, size: int) -> str:
    tail = _read(file, max(size - 2 * _TAIL, 0), 2 * _TAIL)
    place = tail.rfind(b"OggS")
    page = tail[place:]
    if place < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return f"is cut off: {_MARK}"
    missing = 27 + page[26] + sum(page[27 : 27 + page[26]]) - len(page)
    if missing > 0:
        return f"is cut off: {missing:,} bytes of its last page are missing"
    return "" if page[5] & 4 else f"is cut off: {_MARK}"


def _flv(file: BinaryIO, size: int) -> str:
    place = int.from_bytes(_read(file, 5, 4), "big") + 4
    for _ in range(_PARTS):
        head = _read(file, place, 11)
        if re.match(rb"FLV\x01[\0-\x05]\0\0\0", head):
            return _followed(place)
        if len(head) < 11:
            return _PART_CUT if head else ""
        place += 11 + int.from_bytes(head[1:4], "big") + 4
        if place > size + 4:
            return _PART_CUT
    return ""


def _gif(file: BinaryIO, size: int) -> str:
    file.seek(0)
    head = file.read(13)
    if len(head) == 13:
        file.seek(_colours(head[10]), os.SEEK_CUR)
    for _ in range(_PARTS):
        mark = file.read(1)
        if mark == b";":
            after = file.tell()
            return _followed(after) if file.read(4) == b"GIF8" else ""
        if mark == b",":
            place = file.read(9)
            file.seek(_colours(place[-1]) + 1 if len(place) == 9 else 0, os.SEEK_CUR)
        elif mark == b"!":
            file.seek(1, os.SEEK_CUR)
        else:
            return f"is cut off: {_MARK}" if file.tell() >= size else ""
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], os.SEEK_CUR)
    return ""


def _colours(flags: int) -> int:
    """The bytes of the table of colours that follows a header of GIF."""
    return 3 << (flags & 7) + 1 if flags & 128 else 0


def _jpegs(file: BinaryIO, size: int) -> str:
    """Motion-JPEG as pictures one after the other; a single picture is judged by decoding it strictly."""
    tail = _read(file, max(size - _TAIL, 0), _TAIL).rstrip(b"\0")
    first = _read(file, 0, min(size, 1 << 24))
    several = first.count(b"\xff\xd9\xff\xd8") > 2
    return "" if not several or tail.endswith(b"\xff\xd9") else f"is cut off: {_MARK}"


_CHECKS: tuple[tuple[bytes, _Check], ...] = (
    (b"RIFF", _riff), (b"RIFX", _riff), (b"RF64", _riff), (b"FORM", _riff), (b".snd", _au), (b"caff", _caf),
    (_W64, _by_guid), (_ASF, _by_guid), (_EBML, _matroska), (b"OggS", _ogg), (b"FLV\x01", _flv), (b"GIF8", _gif),
    (b"\xff\xd8\xff", _jpegs),
)  # fmt: skip
