"""The end of MPEG audio (MP3, MP2) and AC-3: frames say how long they are, and a Xing or VBRI header the whole file."""

from __future__ import annotations

from typing import BinaryIO

_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Thousands of bits a second by version (1, or 2 for 2 and 2.5) and layer (ISO 11172-3, ISO 13818-3)."""
_AC3_KBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
_HERTZ = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_TOLERATED = 0.01  # share of its bytes that a Xing header may be wrong by
_FEW_FRAMES = 3  # frames in a row by which a file is recognised


def missing_sound(file: BinaryIO, size: int) -> str:
    """How MPEG audio or AC-3 is cut off, as the rest of a sentence; "" if it is not, or the file is neither."""
    place = _after_id3(file)
    file.seek(place)
    first = file.read(4096)
    length = _frame_bytes(first)
    if not length:
        return ""
    declared = _declared_bytes(first[:length])
    if declared and size - place < declared * (1 - _TOLERATED):
        return f"is cut off: it holds {size - place:,} of the {declared:,} bytes of sound that it declares"
    frames = 0
    while True:
        file.seek(place)
        length = _frame_bytes(file.read(6))
        if not length:
            return ""
        if place + length > size:
            return "is cut off: its last frame is incomplete" if frames >= _FEW_FRAMES else ""
        place, frames = place + length, frames + 1


def _after_id3(file: BinaryIO) -> int:
    """The place after the ID3v2 tag at the beginning of a file."""
    file.seek(0)
    head = file.read(10)
    if not head.startswith(b"ID3") or len(head) < 10:
        return 0
    footer = 10 if head[5] & 16 else 0
    return 10 + footer + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0)))


def _frame_bytes(head: bytes) -> int:
    """The bytes of the frame of MPEG audio or AC-3 that begins here; 0 if none does."""
    if head.startswith(b"\x0b\x77"):
        return _ac3_bytes(head)
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or rate in (0, 15) or hertz == 3:
        return 0
    bits = _KBITS[1 if version == 3 else 2, layer][rate - 1] * 1000
    if layer == 1:
        return (12 * bits // _HERTZ[version][hertz] + padding) * 4
    samples = 72 if layer == 3 and version != 3 else 144
    return samples * bits // _HERTZ[version][hertz] + padding


def _ac3_bytes(head: bytes) -> int:
    """The bytes of a frame of AC-3 or E-AC-3 (ETSI TS 102 366); 0 if its header is none."""
    if len(head) < 6:
        return 0
    if head[5] >> 3 > 10:
        return 2 * (((head[2] & 7) << 8 | head[3]) + 1)
    rate, size = head[4] >> 6, head[4] & 63
    if rate == 3 or size >= 2 * len(_AC3_KBITS):
        return 0
    kbits = _AC3_KBITS[size // 2]
    return 2 * (kbits * 2, kbits * 320 // 147 + size % 2, kbits * 3)[rate]


def _declared_bytes(frame: bytes) -> int:
    """The bytes of sound that a first frame declares; 0 if it declares none."""
    for mark in (b"Xing", b"Info"):
        place = frame.find(mark, 0, 64)
        if place >= 0:
            flags = int.from_bytes(frame[place + 4 : place + 8], "big")
            skipped = 8 + 4 * (flags & 1)
            return int.from_bytes(frame[place + skipped : place + skipped + 4], "big") if flags & 2 else 0
    place = frame.find(b"VBRI", 0, 64)
    return int.from_bytes(frame[place + 10 : place + 14], "big") if place >= 0 else 0
