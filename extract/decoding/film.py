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
from .media import FAILURES, Reel, open_media, video_stream

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
_LONGEST_SPAN = 1 << 52  # ticks; stamps with a longer span are damaged


class Unforeseen(Exception):
    """The packets do not foretell the frames."""


class Film(Protocol):
    """A clip as numbered frames.

    times: int64 [n], strictly increasing, in units of ``unit`` seconds (NaN: no clock). end: the time at which the
    last frame leaves the screen, in the same units.
    """

    times: np.ndarray
    end: int
    unit: float

    def show(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """The frames of the given numbers (increasing, unique) that can be decoded, each with its number."""
        ...


class _Foretold:
    """A film whose frames are found by their stamps, with decoding from the nearest key packet on.

    ``show`` raises Unforeseen at the first frame that differs from the packets' plan.
    """

    def __init__(self, reel: Reel) -> None:
        self._reel = reel
        if None in reel.shown_at:
            raise Unforeseen
        stamps = [
            stamp for stamp, hidden in zip(reel.shown_at, reel.hidden) if stamp is not None and not hidden
        ]
        self.times = np.array(sorted(stamps), np.int64)
        if not _clock_works(self.times):
            raise Unforeseen
        # These are the number of the next frame due, and whether frames from before the entry may still come.
        self._expected, self._arrived = 0, True
        self.unit = reel.unit
        # If frames are reordered, containers give steps of decoding time as durations, which say nothing of display.
        shown_for = 0 if reel.reordered else reel.last_duration
        self.end = int(self.times[-1]) + (shown_for or _usual_step(self.times))
        self._number = {int(stamp): number for number, stamp in enumerate(self.times)}
        self._entries = self._find_entries()

    def _find_entries(self) -> list[tuple[int, int]]:
        """The (stamp, packet number) of each place at which decoding may begin, sorted by stamp."""
        assert self._reel.stream is not None
        if self._reel.stream.codec_context.name not in _CLEAN_ENTRY:
            return []
        pairs = zip(self._reel.shown_at, self._reel.key)
        return sorted(
            (stamp, number) for number, (stamp, key) in enumerate(pairs) if key and stamp is not None
        )

    def _entry(self, wanted: int) -> int:
        """The packet at which decoding begins for a frame: the last key packet that is shown no later."""
        place = bisect_right(self._entries, (int(self.times[wanted]), len(self._reel))) - 1
        return self._entries[place][1] if place >= 0 else 0

    def show(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        run: _Run | None = None
        for number in wanted:
            entry = self._entry(number)
            if run is None or entry > run.fed:
                run = _Run(self._reel, entry)
                first = self._reel.shown_at[entry] if entry else None
                self._expected = 0 if first is None else int(np.searchsorted(self.times, first))
                self._arrived = first is None
            yield number, self._advance(run, number)

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
        duration = 0
        run = _Run(reel)
        while (frame := run.next_frame()) is not None:
            stamps.append(frame.pts)
            duration = frame.duration or duration
        if run.damaged:
            notes.append(f"video is damaged: {run.damaged} of {len(reel)} packets gave faulty or no pictures")
        self.times = np.array([-1 if stamp is None else stamp for stamp in stamps], np.int64)
        self.unit = reel.unit
        step = duration
        if None in stamps or not _clock_works(self.times):
            # Only the order is certain, so the frames' numbers serve as times.
            self.times, step = np.arange(len(stamps), dtype=np.int64), 1
            self.unit = _frame_seconds(reel)
        self.end = int(self.times[-1]) + (step or _usual_step(self.times)) if len(stamps) else 0

    def show(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        run, goals, number = _Run(self._reel), set(wanted), 0
        while goals and (frame := run.next_frame()) is not None:
            if number in goals:
                goals.remove(number)
                yield number, frame
            number += 1


class _Run:
    """The decoder's frames in order of display, from a packet on, until the packets end.

    fed: number of the next packet. damaged: number of packets that failed and frames that the decoder marks faulty.
    """

    def __init__(self, reel: Reel, start: int = 0) -> None:
        assert reel.stream is not None
        self._decoder = reel.stream.codec_context
        self._decoder.flush_buffers()
        self._packets = reel.packets(start)
        self._ready: deque[av.VideoFrame] = deque()
        self._over = False
        self.fed = start
        self.damaged = 0

    def next_frame(self) -> av.VideoFrame | None:
        while not self._ready and not self._over:
            self._feed(self._next_packet())
        return self._ready.popleft() if self._ready else None

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
    """Image files as the frames of a clip, in order, without a clock; damaged ones are left out."""

    def __init__(self, paths: Sequence[Path], threads: int, notes: list[str]) -> None:
        self._paths, self._threads, self._notes = paths, threads, notes
        self.times, self.end, self.unit = np.arange(len(paths)), len(paths), float("nan")

    def show(self, wanted: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        for number in wanted:
            try:
                yield number, _first_picture(self._paths[number], self._threads)
            except DecodeError as error:
                self._notes.append(str(error).rstrip("."))


def _first_picture(path: Path, threads: int) -> av.VideoFrame:
    with open_media(path) as container:
        stream = video_stream(container, threads)
        try:
            for frame in container.decode(stream) if stream else ():
                return frame
        except FAILURES:
            pass
    raise DecodeError(f"{path.name!r} holds no picture that decodes.")


def foretold(reel: Reel) -> Film:
    """The film that its packets foretell. Raises Unforeseen, at once or from ``show``, if they do not foretell it."""
    return _Foretold(reel)


def counted(reel: Reel, notes: list[str]) -> Film:
    """The film of the frames that the decoder puts out; ``times`` is empty if no frame comes out."""
    return _Counted(reel, notes)


def _clock_works(times: np.ndarray) -> bool:
    """Whether the times are strictly increasing and their span is plausible."""
    if len(times) == 0 or int(times[-1]) - int(times[0]) > _LONGEST_SPAN:
        return False
    return bool((np.diff(times) > 0).all())


def _usual_step(times: np.ndarray) -> int:
    return max(int(np.median(np.diff(times))), 1) if len(times) > 1 else 1


def _frame_seconds(reel: Reel) -> float:
    rate = reel.stream.average_rate if reel.stream else None
    return 1.0 / float(rate) if rate else float("nan")
