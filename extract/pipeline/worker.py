"""A worker: a process that turns one clip after another into features, or into the inputs of encoders elsewhere.

It is started by :mod:`.pool`, loads the networks that it runs itself, and uses one thread. If a codec takes the process
down, only the clip at hand is lost.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass, field
from io import FileIO
from typing import Any

import numpy as np

from ...errors import DecodeError, FsmmError
from ...machine.memory import keep_freed_memory
from ...machine.orphans import end_with_parent
from ..clip_files import State
from ..contract import (
    ClipFacts,
    Decoded,
    Encoder,
    FrameNeed,
    Need,
    Pair,
    PairNeed,
    Sampling,
    SeriesNeed,
    TellsTimes,
    TextNeed,
)
from ..datasets.base import Source
from .encoding import Fault, encode_each, load
from .thumbnail import thumbnail_of
from .wire import receive, send, widen

READY, ABSENT, FAILED = "ready", "absent", "failed"
ENCODED, UNENCODED, BROKEN = "encoded", "unencoded", "broken"
ENCODING = "encoding"
"""What a worker says when a clip is decoded and its encoders begin."""


@dataclass(frozen=True)
class Setup:
    """A worker's first message. encoders: those of all clip streams of the run; jobs name them by number.

    thumbnails: whether outcomes have the clips' pictures. own: the numbers of the encoders that the worker runs.
    """

    encoders: tuple[Encoder, ...]
    sampling: Sampling
    thumbnails: bool = False
    own: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Job:
    """One clip to decode. wanted: numbers of the encoders that still lack it. state: its files' when planned."""

    clip_id: str
    source: Source
    wanted: tuple[int, ...]
    state: tuple[int, int] | None = None


@dataclass
class Part:
    """One clip for one encoder.

    READY with the encoder's input as its value; ENCODED with features [T, D]; ABSENT, with a reason or ""; FAILED or
    UNENCODED, with a reason (UNENCODED has a Fault as its value); or BROKEN where the encoder itself cannot be used,
    with the name of the error's class as its value.

    times: the seconds of the steps of the value, where they are known.
    """

    state: str
    value: Any = None
    reason: str = ""
    times: np.ndarray | None = None


@dataclass
class Outcome:
    """The outcome of a job.

    stage and reason: "" unless the whole clip failed. notes: the damage that decoding survived. seconds: by stage.
    thumbnail: a JPEG of the clip, or empty. state: that of the clip's files while they were read.
    """

    parts: dict[int, Part] = field(default_factory=dict)
    facts: ClipFacts = field(default_factory=ClipFacts)
    stage: str = ""
    reason: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    thumbnail: bytes = b""
    state: State | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the prepared arrays hold."""
        return sum(getattr(part.value, "nbytes", 0) for part in self.parts.values())


def carry_out(job: Job, setup: Setup) -> Outcome:
    """Decode a clip once and prepare it for every wanted encoder. Never raises for the clip's sake."""
    from ..decoding.decode import decode

    encoders = {number: setup.encoders[number] for number in job.wanted}
    began = time.perf_counter()
    try:
        decoded = decode(
            job.source, job.clip_id, {encoder.need for encoder in encoders.values()}, setup.sampling
        )
    except Exception as error:  # A codec's wrapper may raise anything, and the next clip must go on.
        return Outcome(
            stage="decode", reason=_one_line(error), seconds={"decode": time.perf_counter() - began}
        )
    middle = time.perf_counter()
    parts = {number: prepare_part(encoder, decoded) for number, encoder in encoders.items()}
    picture = thumbnail_of(decoded) if setup.thumbnails else b""
    seconds = {"decode": middle - began, "prepare": time.perf_counter() - middle}
    return Outcome(
        parts, decoded.facts, notes=decoded.notes, seconds=seconds, thumbnail=picture, state=decoded.state
    )


def encode_own(outcome: Outcome, setup: Setup) -> None:
    """Run the worker's own encoders over what a clip has for them."""
    began = time.perf_counter()
    for number, part in outcome.parts.items():
        if number in setup.own and part.state == READY:
            outcome.parts[number] = _encoded(setup.encoders[number], part)
    outcome.seconds["encode"] = time.perf_counter() - began


def _encoded(encoder: Encoder, part: Part) -> Part:
    try:
        made = encode_each(encoder, [part.value])[0][0]
    except FsmmError as error:
        return Part(BROKEN, type(error).__name__, str(error))
    if isinstance(made, Fault):
        return Part(UNENCODED, made, made.reason)
    return Part(ENCODED, made, times=part.times)


def prepare_part(encoder: Encoder, decoded: Decoded) -> Part:
    """One encoder's part of a decoded clip. Never raises for the clip's sake."""
    raw = _raw(decoded, encoder.need)
    if raw is None:
        return Part(ABSENT)
    try:
        value = encoder.prepare(raw)
        need = encoder.need
        taken = decoded.times.get(need.frames if isinstance(need, PairNeed) else need)
        times = encoder.times(raw, taken) if isinstance(encoder, TellsTimes) else taken
    except DecodeError as error:  # The encoder states that it cannot use this clip.
        return Part(ABSENT, reason=_one_line(error))
    except Exception as error:
        return Part(FAILED, reason=_one_line(error))
    # Sending a view would make a copy of its own; a contiguous array is sent as it lies in memory.
    return Part(READY, np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value, times=times)


def _raw(decoded: Decoded, need: Need) -> Any:
    """What ``prepare`` takes: an array, or a Pair for a PairNeed; None where the clip lacks it."""
    if isinstance(need, TextNeed):
        return None
    if isinstance(need, PairNeed):
        frames, sound = decoded.frames.get(need.frames), decoded.audio.get(need.sound)
        return None if frames is None or sound is None else Pair(frames, sound)
    if isinstance(need, SeriesNeed):
        return decoded.series.get(need)
    return decoded.frames.get(need) if isinstance(need, FrameNeed) else decoded.audio.get(need)


def _one_line(error: Exception) -> str:
    """The error's message in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, DecodeError) else f"{type(error).__name__}: {text}"[:500]


def serve(parent: int) -> None:
    """Run the worker's main loop until standard input ends, or the process ``parent`` does.

    Standard input gives a Setup, then Jobs; standard output gets "" when the worker is ready, then for each job an
    Outcome, and before it ENCODING where the worker has encoders of its own. A worker that cannot be ready says why:
    the name of the error's class, and its sentence.
    """
    end_with_parent(parent)
    inbox = FileIO(os.dup(0), "rb")
    outbox = FileIO(os.dup(1), "wb")
    os.dup2(2, 1)  # A library that prints must not write into the answers.
    widen(outbox)
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            setup: Setup = receive(inbox)
            _single_threaded()
            _load_own(setup)
        except EOFError:
            raise
        except Exception as error:
            stated = str(error) if isinstance(error, FsmmError) else _one_line(error)
            send(outbox, (type(error).__name__, stated))
            return
        send(outbox, "")
        while True:
            job: Job = receive(inbox)
            outcome = carry_out(job, setup)
            if setup.own and not outcome.stage:
                send(outbox, ENCODING)
                encode_own(outcome, setup)
            send(outbox, outcome)


def _single_threaded() -> None:
    """Give this worker one thread, since each core has one, and import the decoder, so that its absence shows early."""
    import cv2

    from ..decoding import decode  # noqa: F401

    cv2.setNumThreads(1)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _load_own(setup: Setup) -> None:
    """Load the networks of this worker, each with one thread. Raises what an encoder raises that cannot be used."""
    if not setup.own:
        return
    keep_freed_memory()
    for number in sorted(setup.own):
        load(setup.encoders[number])
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
