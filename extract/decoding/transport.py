"""The end of an MPEG transport stream: whether its last packet, or what its last packets carry, is complete."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

_SYNC = 0x47
_FORMS = ((188, 0), (192, 4), (204, 0))  # bytes of a packet, and the place of its mark
_PROBED = 5  # packets by which a stream is recognised
_TAIL = 10_000  # packets at the end that are looked at, which hold the beginning of the last pictures


def is_transport(file: BinaryIO) -> bool:
    """Whether a file is a transport stream."""
    return _form(file) is not None


def _form(file: BinaryIO) -> tuple[int, int] | None:
    file.seek(0)
    head = file.read(_PROBED * 204)
    for bytes_each, mark in _FORMS:
        marks = head[mark::bytes_each]
        if len(marks) >= 2 and all(byte == _SYNC for byte in marks[:_PROBED]):
            return bytes_each, mark
    return None


@dataclass
class _Unit:
    """The last unit (PES packet) of one stream. left: the bytes that it still lacks; None if it declares no length."""

    left: int | None
    padded: bool = False


def missing_packets(file: BinaryIO, size: int) -> str:
    """How a transport stream is cut off, as the rest of a sentence; "" if it is not, as far as can be told."""
    form = _form(file)
    if form is None:
        return ""
    bytes_each, mark = form
    count, rest = divmod(size, bytes_each)
    if rest:
        return "is cut off: its last packet is incomplete"
    file.seek(max(count - _TAIL, 0) * bytes_each)
    units: dict[int, _Unit] = {}
    while len(packet := file.read(bytes_each)) == bytes_each:
        _follow(packet[mark : mark + 188], units)
    if any(unit.left for unit in units.values() if unit.left is not None):
        return "is cut off: the last part of its sound or pictures is incomplete"
    # A unit without a declared length ends in a packet that padding fills, but for one in 184.
    open_ends = [unit for unit in units.values() if unit.left is None and not unit.padded]
    return "seems to be cut off: its last picture has no end" if open_ends else ""


def _follow(packet: bytes, units: dict[int, _Unit]) -> None:
    """Take one packet into account."""
    if packet[0] != _SYNC or packet[1] & 0x80 or not packet[3] & 0x10:
        return
    stream = (packet[1] & 0x1F) << 8 | packet[2]
    field = packet[4] + 1 if packet[3] & 0x20 else 0
    payload = packet[4 + field :]
    if packet[1] & 0x40:
        units.pop(stream, None)
        if payload[:3] != b"\0\0\1" or len(payload) < 6:
            return
        declared = int.from_bytes(payload[4:6], "big")
        units[stream] = _Unit(declared + 6 if declared else None)
    if (unit := units.get(stream)) is not None:
        unit.padded = field > _used(packet)
        if unit.left is not None:
            unit.left = max(unit.left - len(payload), 0)


def _used(packet: bytes) -> int:
    """The bytes of a packet's adaptation field that carry something; the others are padding."""
    if not packet[4]:
        return 0
    flags = packet[5]
    clocks = 6 * (flags >> 4 & 1) + 6 * (flags >> 3 & 1)
    splice = flags >> 2 & 1
    private = 1 + packet[6 + clocks + splice] if flags & 2 else 0
    return 2 + clocks + splice + private
