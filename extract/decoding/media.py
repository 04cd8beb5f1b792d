"""The safe opening of a media file, and one pass over its video packets and the sound of its audio stream.

This module opens the file and hands FFmpeg its bytes: its name (odd characters, a wrong extension) plays no
part, and a playlist that poses as a video can reach neither other files nor the network.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import av
import av.container
import av.logging
import av.stream
import numpy as np

from ...errors import DecodeError
from .clock import find_jumps
from .endings import ending_of
from .extent import Extent
from .sound import SoundReader
from .tiff import why_black

av.logging.set_level(None)  # FFmpeg's own messages are dropped; the notes report what matters.

FAILURES = (av.FFmpegError, ValueError, OSError, MemoryError)
_HELD_BYTES = 64 << 20  # bytes of compressed video kept in memory; larger files are read again when needed
_LARGEST_PICTURE = 1 << 27  # pixels; guards against a damaged header that asks for all memory
_CLOCK_MAY_JUMP = 0x200  # FFmpeg's flag AVFMT_TS_DISCONT of a format
_RATE_GUESSED = {"mjpeg", "h264", "hevc"}  # formats without times, for which FFmpeg assumes a frame rate
_FEW_SECONDS = 1.0  # seconds that a whole file may be shorter than it declares
_FEW = 0.05  # share of its length that a whole file may be shorter than it declares
# These formats declare their length in their header, where others let FFmpeg guess it.
_LENGTH_DECLARED = {"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "flac", "aiff", "au", "mxf", "rm", "asf"}
_EXACT = {"flac", "aiff", "au", "mxf"}  # formats that declare their length to a sample
_SHORT_PACKETS_TELL = {
    "mpeg",
    "mxf",
    "rm",
    "ivf",
}  # formats in which an incomplete packet is no usual last one
_FEW_EXACT = 0.1  # seconds that a whole file of these may be shorter than it declares
_WEBP_HEAD = 21  # bytes of a WebP file up to the flags of its content
_TILE = av.stream.Disposition.dependent  # a stream that shows one tile of a picture
_NOT_THE_VIDEO = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails


class _Bytes:
    """A file without its name, so that FFmpeg judges by content alone."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def shown(path: Path) -> str:
    """The file's name, fit for a one-line message."""
    return repr(path.name)


def _open_file(path: Path) -> BinaryIO:
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):  # A pipe would block for ever.
            raise DecodeError(f"{shown(path)} is not a regular file.")
        if facts.st_size == 0:
            raise DecodeError(f"{shown(path)} is empty (0 bytes).")
        return open(path, "rb")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(f"{shown(path)} cannot be opened: {reason}.") from None


@contextmanager
def open_media(path: Path) -> Iterator[av.container.InputContainer]:
    """The file as an open container. Raises DecodeError with a plain reason if it cannot be opened."""
    with _open_file(path) as file:
        head = file.read(_WEBP_HEAD)
        file.seek(0)
        try:
            # No protocol is named "none", so FFmpeg can open nothing but the bytes handed over.
            container = av.open(
                _Bytes(file), metadata_errors="ignore", options={"protocol_whitelist": "none"}
            )
        except FAILURES as error:
            raise DecodeError(
                f"{shown(path)} is no video, image or sound file that FFmpeg knows, or its header is damaged "
                f"or cut off ({_plain(error)})."
            ) from None
        with container:
            assert isinstance(container, av.container.InputContainer)
            if container.format.name == "webp_pipe" and _is_animated(head):
                raise DecodeError(
                    f"{shown(path)} is an animated WebP, which this FFmpeg cannot read; convert it to GIF, WebM or MP4."
                )
            if any(stream.disposition & _TILE for stream in container.streams.video):
                raise DecodeError(
                    f"{shown(path)} is a picture in tiles, as phones write HEIC and AVIF files, which are not put "
                    "together here; convert it to JPEG or PNG."
                )
            if container.format.name == "tiff_pipe" and (form := _tiff_form(path)):
                raise DecodeError(f"{shown(path)} {form}, which this FFmpeg cannot read; convert it to PNG.")
            yield container


def _tiff_form(path: Path) -> str:
    with _open_file(path) as file:
        return why_black(file)


def _is_animated(head: bytes) -> bool:
    """Whether the first bytes of a WebP file say that it holds an animation."""
    return head[12:16] == b"VP8X" and len(head) == _WEBP_HEAD and bool(head[-1] & 2)


def video_stream(container: av.container.InputContainer, threads: int) -> av.VideoStream | None:
    """The default video stream, else the largest, never a cover picture; None if the file has no video.

    A stream of one picture gives way to a film, as in animated AVIF, which begins with a picture of its own.
    """
    able = [s for s in container.streams.video if s.codec_context and not s.disposition & _NOT_THE_VIDEO]
    if not able:
        return None
    stream = max(able, key=lambda s: (s.frames != 1, _is_default(s), s.width * s.height, -s.index))
    stream.codec_context.options = {"max_pixels": str(_LARGEST_PICTURE)}
    stream.codec_context.thread_count = threads
    stream.thread_type = "AUTO"
    return stream


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    """The default audio stream, else the first; None if the file has none that can be decoded."""
    able = [s for s in container.streams.audio if s.codec_context]
    return max(able, key=lambda s: (_is_default(s), -s.index), default=None)


def _is_default(stream: av.stream.Stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.default)


@dataclass
class Reel:
    """The findings of one pass over a file's packets about its video stream.

    The lists have one entry for each of P packets in stored order. shown_at and stored_at: presentation and decoding
    time in units of ``unit`` seconds (None if the file gives none); key: whether decoding may begin at the packet;
    hidden: whether the packet is decoded but not shown (cut off by an edit list). last_duration: duration of the
    packet shown last. reordered: whether stored and shown order differ. seconds: span of all streams read.
    may_jump: whether the format's clock may be set anew in the middle of a file. has_gaps: whether the file declares
    places of frames, some of which may be empty, instead of frames (AVI). origin: the stamp, in seconds, at which the
    file begins. end: the seconds from there to the end of what was read; NaN if unknown. tells_time: whether the file
    itself gives its frames times. stopped: whether reading ended before the file did, since no more was wanted.
    """

    path: Path
    stream: av.VideoStream | None
    unit: float = 1.0
    shown_at: list[int | None] = field(default_factory=list)
    stored_at: list[int | None] = field(default_factory=list)
    key: list[bool] = field(default_factory=list)
    hidden: list[bool] = field(default_factory=list)
    last_duration: int = 0
    reordered: bool = False
    seconds: float = float("nan")
    may_jump: bool = False
    has_gaps: bool = False
    origin: float = 0.0
    end: float = float("nan")
    tells_time: bool = True
    stopped: bool = False
    _held: list[av.Packet] | None = field(default_factory=list)
    _held_bytes: int = 0
    _latest: int = -(1 << 63)

    def __len__(self) -> int:
        return len(self.shown_at)

    @property
    def covered(self) -> int:
        """The number of declared frames that were read, empty places between them included."""
        stored = [stamp for stamp in self.stored_at if stamp is not None]
        return max(len(self), max(stored, default=-1) + 1) if self.has_gaps else len(self)

    @cached_property
    def clock_is_doubtful(self) -> bool:
        """Whether decoding times step back where no new clock explains it."""
        stored = np.array([stamp for stamp in self.stored_at if stamp is not None], np.int64)
        return bool((np.diff(stored) < 0).any()) and not self.jumps.any()

    @property
    def lead(self) -> float:
        """The seconds from the file's beginning to its first picture."""
        part = ~np.logical_or.accumulate(self.jumps)
        shown = [t for t, hidden, first in zip(self.shown_at, self.hidden, part) if first and not hidden]
        known = [stamp for stamp in shown if stamp is not None]
        return max(min(known) * self.unit - self.origin, 0.0) if known else 0.0

    @property
    def held(self) -> bool:
        """Whether the packets are in memory, so that a start at any of them costs nothing."""
        return self._held is not None

    def take(self, packet: av.Packet) -> None:
        self.shown_at.append(packet.pts)
        self.stored_at.append(packet.dts)
        self.key.append(packet.is_keyframe)
        self.hidden.append(packet.is_discard)
        if packet.pts is not None:
            self.reordered |= packet.pts < self._latest
            if packet.pts > self._latest:
                self._latest, self.last_duration = packet.pts, packet.duration or 0
        self._held_bytes += packet.size
        if self._held_bytes > _HELD_BYTES:
            self._held = None
        if self._held is not None:
            self._held.append(packet)

    @cached_property
    def jumps(self) -> np.ndarray:
        """Whether the clock was set anew between a packet and the one stored before it, bool [P]."""
        stored = [stamp for stamp in self.stored_at if stamp is not None]
        if len(stored) < len(self):
            return np.zeros(len(self), bool)
        return find_jumps(np.array(stored, np.int64), self.unit, may_jump=self.may_jump)

    @property
    def certain_duration(self) -> int:
        """The time that the frame shown last is shown for; 0 if the file does not tell."""
        # If frames are reordered, containers give steps of decoding time as durations, which say nothing of display.
        return 0 if self.reordered or self.jumps.any() else self.last_duration

    def packets(self, stamps: Sequence[int | None], start: int = 0) -> Iterator[av.Packet]:
        """The video packets from number ``start`` on, from memory or from the file.

        stamps: the presentation time [P] that each packet is given. Raises LookupError if seeking does not lead to
        that packet.
        """
        packets = iter(self._held[start:]) if self._held is not None else self._from_file(start)
        for packet, stamp in zip(packets, stamps[start:]):
            packet.pts = stamp
            yield packet

    def _from_file(self, start: int) -> Iterator[av.Packet]:
        assert self.stream is not None
        with open_media(self.path) as container:
            stream = container.streams[self.stream.index]
            if (
                start and self.jumps.any()
            ):  # The clock shows one time more than once, so seeking leads nowhere.
                yield from islice(_whole_packets(container, [stream]), start, None)
                return
            goal = self.stored_at[start]
            if start and goal is not None:
                container.seek(goal, stream=stream, backward=True)
            found = start == 0
            for packet in _whole_packets(container, [stream]):
                if not found and (packet.dts is None or goal is None or packet.dts > goal):
                    break
                found = found or packet.dts == goal
                if found:
                    yield packet
            if not found:
                raise LookupError(start)


def read_once(
    path: Path,
    container: av.container.InputContainer,
    video: av.VideoStream | None,
    audio: av.AudioStream | None,
    sound: SoundReader | None,
    notes: list[str],
    until: float = float("inf"),
) -> Reel:
    """Read all packets once: video packets are noted (and held while they are few), sound packets are decoded.

    until: the seconds from the file's beginning after which nothing is wanted.
    """
    may_jump = clock_may_jump(container)
    reel = Reel(
        path,
        video,
        float(video.time_base or 1) if video else 1.0,
        may_jump=may_jump,
        has_gaps=container.format.name == "avi",
        origin=origin_of(container),
        tells_time=container.format.name not in _RATE_GUESSED,
    )
    extent = Extent(may_jump=may_jump)
    wanted = [stream for stream in (video, audio) if stream is not None]
    corrupt = 0
    try:
        for packet in _whole_packets(container, wanted):
            extent.add(packet)
            corrupt += packet.is_corrupt and container.format.name in _SHORT_PACKETS_TELL
            if extent.has_passed(reel.origin + until, len(wanted)):
                reel.stopped = True
                break
            if video is not None and packet.stream_index == video.index:
                reel.take(packet)
            elif sound is not None:
                sound.feed(packet)
    except FAILURES as error:
        notes.append(f"reading {shown(path)} stopped after {extent.seconds:.1f} s: {_plain(error)}")
    reel.seconds, reel.end = extent.seconds, extent.end - reel.origin
    if reel.stopped:
        return reel
    declared = _declared_seconds(container, wanted)
    few = _FEW_EXACT if container.format.name in _EXACT else max(_FEW_SECONDS, _FEW * declared)
    if declared - extent.reach > few:
        notes.append(f"{shown(path)} ends after {extent.reach:.1f} of the {declared:.1f} s that it declares")
    elif ending := ending_of(path):
        notes.append(f"{shown(path)} {ending}")
    elif corrupt:
        notes.append(f"{shown(path)} is damaged or cut off: {corrupt} of its packets are incomplete")
    return reel


def clock_may_jump(container: av.container.InputContainer) -> bool:
    """Whether the clock of a file's format may be set anew in its middle."""
    return bool(container.format.flags & _CLOCK_MAY_JUMP)


def origin_of(container: av.container.InputContainer) -> float:
    """The stamp, in seconds, at which a file begins, as players count; what is stamped before 0 is not played."""
    return max(container.start_time or 0, 0) / av.time_base


def _declared_seconds(container: av.container.InputContainer, streams: Sequence[av.stream.Stream]) -> float:
    """The length of these streams that the file's header states; NaN if it states none."""
    if container.format.name not in _LENGTH_DECLARED:
        return float("nan")
    if len(streams) == len(container.streams) and container.duration is not None:
        return container.duration / av.time_base
    stated = [float(s.duration * s.time_base) for s in streams if s.duration is not None and s.time_base]
    return max(stated, default=float("nan"))


def _whole_packets(
    container: av.container.InputContainer, streams: Sequence[av.stream.Stream]
) -> Iterator[av.Packet]:
    """The packets that hold data and are shown or needed to show others."""
    while True:
        try:
            yield from (packet for packet in container.demux(*streams) if packet.size)
            return
        except IndexError:
            # The packet is of a stream that appeared after opening, which PyAV does not know, and is skipped.
            continue


def _plain(error: BaseException) -> str:
    """The message of an FFmpeg error, without its number and file name."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
