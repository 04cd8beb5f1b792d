"""The decoding of a clip's files to the frames and the sound that a run's encoders need, in one pass over the file."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from av import AudioStream, VideoStream
from av.container import InputContainer

from ...errors import DecodeError
from ..clip_files import files_of, sha256_of, state_of
from ..contract import AudioNeed, ClipFacts, Decoded, FrameNeed, Need, Sampling, SeriesNeed, single_needs
from ..datasets.base import Series, Source
from .clock import longest_gap
from .excerpt import Excerpt
from .film import Film, Stills, Unforeseen, counted, foretold
from .media import (
    FAILURES,
    Reel,
    audio_stream,
    clock_may_jump,
    open_media,
    origin_of,
    read_once,
    shown,
    video_stream,
)
from .pictures import Painter, shown_size
from .sampling import pick_frames
from .series import windows_of
from .sound import SoundReader
from .window import Window

_BEYOND = (
    0.5  # seconds that the end of a part may lie after the end of its file, since ends are often rounded
)
_STATES = 3  # times that a clip is read whose files change while it is read
_FEW_LOST = 0.05  # share of the declared frames whose absence is normal in old files


def decode(
    source: Source, clip_id: str, needs: Collection[Need], sampling: Sampling, *, threads: int = 1
) -> Decoded:
    """Decode one clip for all ``needs`` at once.

    source: its files. clip_id: the seed of random sampling. threads: threads of the video decoder (0: FFmpeg
    decides; 1 suits worker processes, one a core).

    The result holds, per FrameNeed, uint8 [T, L, S, S, 3] RGB, upright and in display shape; per AudioNeed, mono
    float32 [samples] in [-1, 1]; per SeriesNeed, the windows float32 [T, W, C] of a time series; and the facts, whose
    sha256 covers the files' bytes (video, or images in order, then separate sound, then series) and a span. The result
    lacks what the clip lacks; damage that leaves something usable is reported in ``notes``. Of a source with a span,
    only this part is read, as if it were the file.

    Files that change meanwhile are read again, so that the frames, the sound and the digest are those of one state.

    Raises DecodeError if the clip's files give neither a picture nor sound, a span lies outside of them, or they do not
    stop changing.
    """
    for _ in range(_STATES):
        before = state_of(source)
        job = _Job(source=source, clip_id=clip_id, needs=needs, sampling=sampling, threads=threads)
        try:
            decoded = job.run()
        except DecodeError:
            if state_of(source) == before:
                raise
            continue
        if state_of(source) == before:
            decoded.state = before
            return decoded
    raise DecodeError(
        f"{shown(files_of(source)[0])} was changed each of {_STATES} times that it was read; "
        "extract it again when it is whole."
    )


_File = TypeVar("_File", Path, Series)


class _Job:
    """One clip that is being decoded: the steps of :func:`decode` share its needs and its growing result."""

    def __init__(
        self, source: Source, clip_id: str, needs: Collection[Need], sampling: Sampling, threads: int
    ) -> None:
        self.source, self.clip_id, self.sampling, self.threads = source, clip_id, sampling, threads
        self.span = source.span
        alone = single_needs(needs)
        self.frame_needs = [need for need in alone if isinstance(need, FrameNeed)]
        self.series_needs = {need.series: need for need in alone if isinstance(need, SeriesNeed)}
        self.windows: dict[SeriesNeed, np.ndarray] = {}
        self.times: dict[Need, np.ndarray] = {}
        self.audio_needs = [need for need in alone if isinstance(need, AudioNeed)]
        self.notes: list[str] = []
        self.frames: dict[FrameNeed, np.ndarray] = {}
        self.sounds: dict[int, np.ndarray] = {}
        self.heard = False
        self.size = (0, 0)
        self.fps = self.seconds = float("nan")
        self.trouble: DecodeError | None = None

    def run(self) -> Decoded:
        if self.source.video is not None:
            self._attempt(self._read_video, self.source.video)
        elif self.source.images:
            self._show(self._stills(self.source.images), 1.0)
        if self.source.audio is not None:
            self._attempt(self._read_audio, self.source.audio)
        for series in self.source.series:
            self._attempt(self._read_series, series)
        if self.size == (0, 0) and not self.heard and not self._has_series:
            raise self.trouble or DecodeError(self._nothing_usable())
        audio = {need: self.sounds[need.rate] for need in self.audio_needs if need.rate in self.sounds}
        return Decoded(
            facts=self._facts(),
            frames=self.frames,
            audio=audio,
            series=self.windows,
            notes=self.notes,
            times=self.times,
        )

    @property
    def _has_series(self) -> bool:
        """Whether a time series was read, or a clip that has nothing else has none that was asked for."""
        only = self.source.video is None and not self.source.images and self.source.audio is None
        asked = any(series.name in self.series_needs for series in self.source.series)
        return bool(self.windows) or (only and bool(self.source.series) and not asked)

    def _attempt(self, step: Callable[[_File], None], file: _File) -> None:
        """Take a step on a file; a file that cannot be read becomes a note as long as the clip has another file."""
        try:
            step(file)
        except DecodeError as error:
            self.trouble = self.trouble or error
            self.notes.append(str(error).rstrip("."))

    def _read_series(self, series: Series) -> None:
        if (need := self.series_needs.get(series.name)) is not None:
            window, hop = self.sampling.window, self.sampling.hop
            cut_up = windows_of(series, window=window, hop=hop, span=self.span)
            self.windows[need], self.times[need] = cut_up.values, cut_up.middles

    def _read_video(self, path: Path) -> None:
        with ExitStack() as stack:
            container = stack.enter_context(open_media(path))
            video = video_stream(container, self.threads)
            audio = audio_stream(container) if self.source.audio is None else None
            if video is None and audio is None:
                raise DecodeError(f"{shown(path)} holds neither video nor sound that can be decoded.")
            reel = self._read_streams(path, container, video, audio)
            self.seconds = self._seconds_of(reel)
            if video is not None and len(reel):
                self._show_reel(reel, float(video.sample_aspect_ratio or 1))

    def _stills(self, images: Sequence[Path]) -> Film:
        """The images, or those of the part that the clip is where they tell time."""
        film = Stills(images, self.threads, self.notes, self.source.frame_rate)
        if self.span is None or not film.tells_time:
            return film
        return Excerpt(film, self.span, lead=0.0)

    def _read_audio(self, path: Path) -> None:
        with open_media(path) as container:
            audio = audio_stream(container)
            if audio is None:
                raise DecodeError(f"{shown(path)} holds no sound that can be decoded.")
            reel = self._read_streams(path, container, None, audio)
        self.seconds = float(np.fmax(self.seconds, self._seconds_of(reel)))

    def _read_streams(
        self, path: Path, container: InputContainer, video: VideoStream | None, audio: AudioStream | None
    ) -> Reel:
        """The reel of a file that is read once, with its sound, both checked against the span."""
        sound = self._sound_reader(audio, container)
        reel = read_once(
            path=path,
            container=container,
            video=video,
            audio=audio,
            sound=sound,
            notes=self.notes,
            until=self.span.end if self.span else math.inf,
        )
        self._check_span(reel)
        self._finish_sound(sound)
        return reel

    def _sound_reader(self, stream: AudioStream | None, container: InputContainer) -> SoundReader | None:
        if stream is None:
            return None
        window, origin = None, origin_of(container)
        if self.span is not None:
            gap = longest_gap(may_jump=clock_may_jump(container))
            window = Window(origin + self.span.start, origin + self.span.end, gap)
        rates = [need.rate for need in self.audio_needs]
        return SoundReader(stream, rates, self.sampling.max_seconds, window)

    def _check_span(self, reel: Reel) -> None:
        """Note a span that ends well after its file. Raises DecodeError for one that begins after it."""
        span = self.span
        if span is None:
            return
        told = f" ({span.told})" if span.told else ""
        if reel.end <= span.start:
            raise DecodeError(
                f"The clip starts at {span.start:g} s, and {shown(reel.path)} ends at {reel.end:.2f} s{told}."
            )
        if reel.end + _BEYOND < span.end < math.inf:
            self.notes.append(
                f"the clip is to end at {span.end:g} s, and {shown(reel.path)} ends at {reel.end:.2f} s{told}"
            )

    def _seconds_of(self, reel: Reel) -> float:
        """The length of what is wanted of a reel."""
        return reel.seconds if self.span is None else min(self.span.end, reel.end) - self.span.start

    def _finish_sound(self, sound: SoundReader | None) -> None:
        if sound is not None:
            self.sounds = sound.finish(self.notes)
            self.heard = sound.heard

    def _show_reel(self, reel: Reel, pixel_shape: float) -> None:
        try:
            if self.span is not None and reel.clock_is_doubtful:
                raise Unforeseen
            self._show(self._wanted(foretold(reel), reel), pixel_shape)
        except Unforeseen:
            self._show(self._wanted(counted(reel, self.notes), reel), pixel_shape)
        declared = reel.stream.frames if reel.stream is not None and not reel.stopped else 0
        if reel.covered < (1 - _FEW_LOST) * declared:
            self.notes.append(f"video holds {len(reel)} of the {declared} frames it declares")

    def _wanted(self, film: Film, reel: Reel) -> Film:
        """The film, or the part of it that the clip is. Raises DecodeError for a part of a film without times."""
        if self.span is None:
            return film
        if len(film.times) and not film.tells_time:
            raise DecodeError(
                f"{shown(reel.path)} gives its frames no times, so no part of it can be cut out; convert it to MP4."
            )
        return Excerpt(film, self.span, reel.lead)

    def _show(self, film: Film, pixel_shape: float) -> None:
        """Take the wanted frames of a film; nothing is kept if the film proves Unforeseen."""
        if not len(film.times):
            self.notes.append(
                "no frame of the video decodes"
                if self.span is None
                else "no picture lies in the part that the clip is"
            )
            return
        chosen = {
            need: pick_frames(
                times=film.times, end=film.end, need=need, sampling=self.sampling, clip_id=self.clip_id
            )
            for need in self.frame_needs
        }
        painters = {need: Painter(need) for need in chosen}
        pictures: dict[FrameNeed, dict[int, np.ndarray]] = {need: {} for need in chosen}
        # Even if no frames are needed, one frame shows whether the clip has a picture, and its size.
        wanted = sorted({int(i) for indices in chosen.values() for i in indices.flat} or {0})
        members = {need: set(indices.flat) for need, indices in chosen.items()}
        size = (0, 0)
        for number, frame, turn in film.show(wanted):
            try:
                for need, painter in painters.items():
                    if number in members[need]:
                        pictures[need][number] = painter.paint(frame, turn, pixel_shape)
            except FAILURES as error:
                self.notes.append(f"frame {number} cannot be converted to RGB ({error})")
                continue
            size = size if size != (0, 0) else shown_size(frame, turn)
        self.size = size
        self.frames = {need: _gather(chosen[need], pictures[need]) for need in chosen if pictures[need]}
        if film.tells_time:
            self.times |= {need: _middles(film, chosen[need]) for need in self.frames}
        span = (film.end - int(film.times[0])) * film.unit
        self.fps = len(film.times) / span if span > 0 else float("nan")
        self.seconds = float(np.fmax(self.seconds, span))

    def _facts(self) -> ClipFacts:
        has_video = self.size != (0, 0)
        return ClipFacts(
            duration=self.seconds,
            fps=self.fps if has_video else float("nan"),
            width=self.size[0],
            height=self.size[1],
            has_video=has_video,
            has_audio=self.heard,
            sha256=self.source.digest(_sha256(tuple(files_of(self.source)), state_of(self.source)[:2])),
        )

    def _nothing_usable(self) -> str:
        files = files_of(self.source)
        if not files:
            return f"Clip {self.clip_id!r} has no file."
        reasons = f" ({'; '.join(self.notes[:3])})" if self.notes else ""
        return f"{shown(files[0])} has neither a picture nor sound that can be decoded{reasons}."


def _middles(film: Film, indices: np.ndarray) -> np.ndarray:
    """The second of the middle of each segment's frames [T, L], float64 [T], from the film's first frame on."""
    times = film.times[indices] - film.times[0]
    return (times[:, 0] + times[:, -1]) * (film.unit / 2)


def _gather(indices: np.ndarray, pictures: dict[int, np.ndarray]) -> np.ndarray:
    """The pictures [T, L, S, S, 3] in the order of ``indices`` [T, L].

    The nearest decoded picture stands in for a picture that failed.
    """
    decoded = np.array(sorted(pictures))
    nearest = decoded[np.abs(indices[..., None] - decoded).argmin(-1)]
    return np.stack([np.stack([pictures[int(i)] for i in row]) for row in nearest])


@lru_cache(maxsize=4)
def _sha256(files: tuple[Path, ...], state: tuple[object, ...]) -> str:
    """The digest of files in a certain state; the files of which one clip after another is a part are read once."""
    return sha256_of(files)
