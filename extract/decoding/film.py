"""The pictures of a clip by number, where frame 0 is the first that is shown, whatever the order in the file.

A :class:`Reel`'s packets usually foretell exactly which frames will come out and when. Then only the
stretches that hold wanted frames are decoded (:class:`_Foretold`). As soon as one frame differs from that
plan (damage, packed frames, stamps that are wrong or absent) all frames are decoded in order, once to learn
their times and once to take the wanted ones (:class:`_Counted`). Where both ways work they give the same
pictures.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from ...errors import DecodeError
from .clock import clock_works, find_jumps, laid_out, usual_step
from .media import FAILURES, Reel, open_media, shown, video_stream
from .pictures import UPRIGHT, Turn, turning

# In streams of these codecs, decoding may safely begin at any key packet.
_CLEAN_ENTRY = {
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "av1",
    "libdav1d",
    "libaom-av1",
    "mpeg4",
    "mpeg1video",
    "mpeg2video",
}
# In streams of these codecs, messages of key pictures may tell the turn of the pictures that follow.
_TURN_LASTS = {"h264", "hevc"}
Shown = tuple[int, av.VideoFrame, Turn]  # a frame's number, the frame, and the turn that shows it upright


class Unforeseen(Exception):
    """The packets do not foretell the frames."""


class Film(Protocol):
    """A clip as numbered frames.

    times: int64 [n], increasing (equal only where the clock is too coarse to tell frames apart), in units of ``unit``
    seconds (NaN: no clock). end: the time at which the last frame leaves the screen, in the same units. tells_time:
    whether the times are those of the file, and not merely the order of the frames.
    """

    times: np.ndarray
    end: int
    unit: float
    tells_time: bool

    def show(self, wanted: Sequence[int]) -> Iterator[Shown]:
        """The frames of the given numbers (increasing, unique) that can be decoded, with their numbers and turns."""
        ...


class _Foretold:
    """A film whose frames are found by their stamps, with decoding from the nearest key packet on.

    ``show`` raises Unforeseen at the first frame that differs from the packets' plan.
    """

    def __init__(self, reel: Reel) -> None:
        self._reel = reel
        self.unit, self.tells_time = reel.unit, reel.tells_time
        # The decoder hands each packet's stamp on to its frame. These are the packets' stamps, and those of the frames
        # in order of display.
        self._stamps: Sequence[int | None] = reel.shown_at
        stamps = [stamp for stamp in reel.shown_at if stamp is not None]
        if len(stamps) < len(reel):
            raise Unforeseen
        shown = [stamp for stamp, hidden in zip(stamps, reel.hidden) if not hidden]
        self.times = self._due = np.array(sorted(shown), np.int64)
        if clock_works(self.times) and not reel.jumps.any():
            self.end = int(self.times[-1]) + (reel.certain_duration or usual_step(self.times))
        else:
            self._number_packets()
        # These are the number of the next frame due, and whether frames from before the entry may still come.
        self._expected, self._arrived = 0, True
        self._number = {int(stamp): number for number, stamp in enumerate(self._due)}
        self._entries = self._find_entries()

    def _number_packets(self) -> None:
        """Replace stamps that are ambiguous by the packets' places in the order of display."""
        reel, stamps = self._reel, np.array(self._stamps, np.int64)
        part = np.cumsum(reel.jumps)
        order = np.lexsort((stamps, part))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._stamps = [int(number) for number in place]
        shown = order[~np.array(reel.hidden, bool)[order]]
        self._due = place[shown]
        laid = laid_out(stamps[shown], np.diff(part[shown], prepend=0) > 0, reel.certain_duration)
        if laid is None:
            raise Unforeseen
        self.times, self.end = laid

    def _find_entries(self) -> list[tuple[int, int]]:
        """The (stamp, packet number) of each place at which decoding may begin, sorted by stamp."""
        assert self._reel.stream is not None
        if self._reel.stream.codec_context.name not in _CLEAN_ENTRY:
            return []
        pairs = zip(self._stamps, self._reel.key)
        return sorted(
            (stamp, number) for number, (stamp, key) in enumerate(pairs) if key and stamp is not None
        )

    def _entry(self, wanted: int) -> int:
        """The packet at which decoding begins for a frame: the last key packet that is shown no later."""
        place = bisect_right(self._entries, (int(self._due[wanted]), len(self._reel))) - 1
        return self._entries[place][1] if place >= 0 else 0

    def show(self, wanted: Sequence[int]) -> Iterator[Shown]:
        run: _Run | None = None
        for number in wanted:
            entry = self._entry(number)
            if run is None or entry > run.fed:
                turn = run.turn if run is not None else self._first_turn(entry)
                run = _Run(self._reel, self._stamps, entry, turn)
                first = self._stamps[entry] if entry else None
                self._expected = 0 if first is None else int(np.searchsorted(self._due, first))
                self._arrived = first is None
            frame = self._advance(run, number)
            yield number, frame, run.turn

    def _first_turn(self, entry: int) -> Turn:
        """The turn of the film's first frame, which lasts, where decoding begins later; else no turn."""
        assert self._reel.stream is not None
        if not entry or self._reel.stream.codec_context.name not in _TURN_LASTS:
            return UPRIGHT
        run = _Run(self._reel, self._stamps)
        run.next_frame()
        return run.turn

    def _advance(self, run: _Run, wanted: int) -> av.VideoFrame:
        while (frame := run.next_frame()) is not None:
            number = self._number.get(frame.pts) if frame.pts is not None else None
            if not self._arrived:
                # Frames shown before the entry lack their reference frames and must not be taken.
                if number is not None and number < self._expected:
                    continue
                if not frame.key_frame:
                    raise Unforeseen
                self._arrived = True
            if run.damaged or number != self._expected:
                raise Unforeseen
            self._expected += 1
            if number == wanted:
                return frame
        raise Unforeseen


class _Counted:
    """A film whose frames are found by counting the decoder's output from the first frame on."""

    def __init__(self, reel: Reel, notes: list[str]) -> None:
        self._reel = reel
        stamps: list[int | None] = []
        stored: list[int | None] = []
        duration = 0
        run = _Run(reel, reel.shown_at)
        while (frame := run.next_frame()) is not None:
            stamps.append(frame.pts)
            stored.append(frame.dts)
            duration = frame.duration or duration
        if run.damaged:
            notes.append(f"video is damaged: {run.damaged} of {len(reel)} packets gave faulty or no pictures")
        self.unit, self.tells_time = reel.unit, reel.tells_time
        laid = _times_of(stamps, stored, duration, reel)
        if laid is None:
            # Only the order is certain, so the frames' numbers serve as times.
            laid = np.arange(len(stamps), dtype=np.int64), len(stamps)
            self.unit, self.tells_time = _frame_seconds(reel), False
            if any(stamp is not None for stamp in stamps):
                notes.append(
                    "the video's time stamps are of no use, and its frames are taken to last equally long"
                )
        self.times, self.end = laid

    def show(self, wanted: Sequence[int]) -> Iterator[Shown]:
        run, goals, number = _Run(self._reel, self._reel.shown_at), set(wanted), 0
        while goals and (frame := run.next_frame()) is not None:
            if number in goals:
                goals.remove(number)
                yield number, frame, run.turn
            number += 1


class _Run:
    """The decoder's frames in order of display, from a packet on, until the packets end.

    stamps: the stamp that each packet of the reel is given, which its frame then bears. fed: number of the next packet.
    damaged: number of packets that failed and frames that the decoder marks faulty. turn: that of the last frame, which
    inherits it from the frame before where the codec tells it with key pictures only.
    """

    def __init__(
        self, reel: Reel, stamps: Sequence[int | None], start: int = 0, turn: Turn = UPRIGHT
    ) -> None:
        assert reel.stream is not None
        self._decoder = reel.stream.codec_context
        self._decoder.flush_buffers()
        self._packets = reel.packets(stamps, start)
        self._ready: deque[av.VideoFrame] = deque()
        self._over = False
        self._turn_lasts = self._decoder.name in _TURN_LASTS
        self.turn = turn
        self.fed = start
        self.damaged = 0

    def next_frame(self) -> av.VideoFrame | None:
        while not self._ready and not self._over:
            self._feed(self._next_packet())
        if not self._ready:
            return None
        frame = self._ready.popleft()
        self.turn = turning(frame) or (self.turn if self._turn_lasts else UPRIGHT)
        return frame

    def _next_packet(self) -> av.Packet | None:
        try:
            packet = next(self._packets, None)
        except LookupError:
            raise Unforeseen from None
        except FAILURES:
            packet = None
        self.fed += packet is not None
        self._over = packet is None
        return packet

    def _feed(self, packet: av.Packet | None) -> None:
        try:
            frames = self._decoder.decode(packet)
        except FAILURES:
            self.damaged += 1
            return
        self.damaged += sum(frame.is_corrupt for frame in frames)
        self._ready.extend(frames)


class Stills:
    """Image files as the frames of a clip, in order; damaged ones are left out.

    rate: the frames a second; 0 where there is no clock.
    """

    def __init__(self, paths: Sequence[Path], threads: int, notes: list[str], rate: float = 0.0) -> None:
        self._paths, self._threads, self._notes = paths, threads, notes
        self.times, self.end, self.tells_time = np.arange(len(paths)), len(paths), rate > 0
        self.unit = 1 / rate if rate else float("nan")

    def show(self, wanted: Sequence[int]) -> Iterator[Shown]:
        for number in wanted:
            try:
                picture = self._picture(self._paths[number])
                yield number, picture, turning(picture) or UPRIGHT
            except DecodeError as error:
                self._notes.append(str(error).rstrip("."))

    def _picture(self, path: Path) -> av.VideoFrame:
        try:
            return _first_picture(path, self._threads, strict=True)
        except DecodeError:
            picture = _first_picture(path, self._threads)
            self._notes.append(f"{shown(path)} decodes with errors, as a damaged or cut picture does")
            return picture


def _first_picture(path: Path, threads: int, *, strict: bool = False) -> av.VideoFrame:
    """The picture of an image file. strict: a damaged JPEG file has none. Raises DecodeError if there is none."""
    with open_media(path) as container:
        stream = video_stream(container, threads)
        # FFmpeg makes a picture of half a JPEG file and marks it by nothing. It refuses other files that are cut, and
        # its strict mode also refuses TIFF files for tags that it does not know.
        if stream and strict and stream.codec_context.name == "mjpeg":
            stream.codec_context.options = {**stream.codec_context.options, "err_detect": "explode"}
        try:
            for frame in container.decode(stream) if stream else ():
                return frame
        except FAILURES:
            pass
    raise DecodeError(f"{shown(path)} holds no picture that decodes.")


def foretold(reel: Reel) -> Film:
    """The film that its packets foretell. Raises Unforeseen, at once or from ``show``, if they do not foretell it."""
    return _Foretold(reel)


def counted(reel: Reel, notes: list[str]) -> Film:
    """The film of the frames that the decoder puts out; ``times`` is empty if no frame comes out."""
    return _Counted(reel, notes)


def _times_of(
    stamps: Sequence[int | None], stored: Sequence[int | None], duration: int, reel: Reel
) -> tuple[np.ndarray, int] | None:
    """The times of the decoder's frames in order of display, and the end; None if the stamps tell no time.

    stamps, stored: the frames' presentation times, and the decoding times of the packets that brought them out.
    duration: that of the last frame; 0 if unknown.
    """
    known = None not in stamps
    times = np.array([stamp or 0 for stamp in stamps], np.int64)
    jumps = find_jumps(times, reel.unit, may_jump=reel.may_jump)
    if known and clock_works(times) and not jumps.any():
        return times, int(times[-1]) + (duration or usual_step(times))
    shown = ~np.array(reel.hidden, bool)
    packets = np.array([stamp for stamp in reel.stored_at if stamp is not None], np.int64)
    one_each = len(packets) == len(reel) and shown.sum() == len(stamps)  # Each packet gave a frame.
    if one_each:
        jumps = reel.jumps[shown]
    if not known or (np.diff(times)[~jumps[1:]] < 0).any():
        # The decoding times are in order, and tell the times of the frames but for a delay.
        decoded = packets[shown] if one_each else _continued(stored)
        if decoded is None:
            return None
        times, jumps = decoded, find_jumps(decoded, reel.unit, may_jump=reel.may_jump)
    return laid_out(times, jumps, duration if not jumps.any() else 0)


def _continued(stored: Sequence[int | None]) -> np.ndarray | None:
    """Decoding times whose last ones, which no packet brought, follow at the usual step; None if others are unknown."""
    count = next((i for i, stamp in enumerate(stored) if stamp is None), len(stored))
    if count < 2 or any(stamp is not None for stamp in stored[count:]):
        return None
    times = np.array(stored[:count], np.int64)
    rest = np.arange(1, len(stored) - count + 1) * usual_step(times)
    return np.concatenate([times, times[-1] + rest])


def _frame_seconds(reel: Reel) -> float:
    rate = reel.stream.average_rate if reel.stream else None
    return 1.0 / float(rate) if rate else float("nan")
