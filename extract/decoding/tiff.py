"""The forms of TIFF that FFmpeg shows black without an error: compressed by JPEG, or divided into tiles."""

from __future__ import annotations

from typing import BinaryIO, Literal

_COMPRESSION, _TILE_WIDTH, _DNG_VERSION = 259, 322, 50706
_JPEG, _SHORT = (6, 7), 3
_MOST_TAGS = 4096


def why_black(file: BinaryIO) -> str:
    """How a TIFF picture is stored, where FFmpeg would show it black, as the rest of a sentence; "" if it would not."""
    file.seek(0)
    head = file.read(8)
    order: Literal["little", "big"] = "big" if head.startswith(b"MM") else "little"
    file.seek(int.from_bytes(head[4:], order))
    tags: dict[int, int] = {}
    for _ in range(min(int.from_bytes(file.read(2), order), _MOST_TAGS)):
        entry = file.read(12)
        kind = int.from_bytes(entry[2:4], order)
        value = entry[8:10] if kind == _SHORT else entry[8:12]
        tags[int.from_bytes(entry[:2], order)] = int.from_bytes(value, order)
    if _DNG_VERSION in tags:
        return ""
    if tags.get(_COMPRESSION) in _JPEG:
        return "is a TIFF compressed by JPEG"
    return "is a TIFF divided into tiles" if _TILE_WIDTH in tags else ""
