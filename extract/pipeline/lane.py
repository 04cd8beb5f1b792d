"""One stream on its way into the cache: prepared clips gather in a batch, the encoder runs, the rows are written."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...cache.schema import Provenance
from ...cache.stream import StreamWriter
from ...cache.times import evened
from ...errors import CacheError, FsmmError
from ..contract import AudioNeed, Encoder, FrameNeed, Need, PairNeed, Sampling, SeriesNeed
from .encoding import Fault, Made, encode_each, raised_elsewhere
from .worker import BROKEN, READY, Part

# After this many failures other than DecodeError, with no success in between, the encoder is at fault.
_FAILURES_IN_A_ROW = 20
_MOST_BYTES = 1 << 30  # bytes of prepared clips that may wait for an encoder beside this thread


class Clock:
    """A clock that adds up seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._lock = threading.Lock()
        self._inside: dict[str, int] = defaultdict(int)
        self._since: dict[str, float] = {}
        self._spans: dict[str, tuple[float, float]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - began

    @contextmanager
    def shared(self, stage: str) -> Iterator[None]:
        """A stage that several threads may be in at once: the seconds in which any of them was are counted once."""
        with self._lock:
            self._inside[stage] += 1
            if self._inside[stage] == 1:
                self._since[stage] = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._inside[stage] -= 1
                if not self._inside[stage]:
                    now = time.perf_counter()
                    self.seconds[stage] += now - self._since[stage]
                    self._spans[stage] = (self._spans.get(stage, (self._since[stage], now))[0], now)

    def share_within(self, stage: str) -> float | None:
        """The share of the time from a shared stage's first beginning to its last end in which it ran; None if it did
        not run.
        """
        if stage not in self._spans:
            return None
        first, last = self._spans[stage]
        return min(1.0, self.seconds[stage] / max(last - first, 1e-9))


@dataclass
class _Waiting:
    key: str
    part: Part
    facts: Mapping[str, object]


@dataclass
class _Batch:
    """Rows on their way through the encoder. made: what becomes of those that are ready, and how many fit at once."""

    rows: list[_Waiting]
    made: Future[tuple[list[Made], int]] | None


class Lane:
    """A stream's encoder and writer; rows are written in the order in which they are added, whatever the batches.

    Clips that a worker has encoded are written as they come. Others gather in batches, which this thread encodes, or as
    many ``threads`` as are given, beside it; rows that wait for them are bounded by their bytes.
    failed: called with (clip, stage, reason) for a row that could not be made. written: rows with features;
    absent: rows recorded as absent; failures: rows that could not be made; copied: rows that the cache held elsewhere.
    """

    def __init__(
        self,
        encoder: Encoder,
        writer: StreamWriter,
        clock: Clock,
        failed: Callable[[str, str, str], None],
        threads: int = 0,
    ) -> None:
        self.encoder, self.writer, self.clock, self.failed = encoder, writer, clock, failed
        self.written, self.absent, self.failures, self.copied = 0, 0, 0, 0
        self.seconds = 0.0
        self._waiting: list[_Waiting] = []
        self._ready = self._in_a_row = self._bytes = 0
        self._most = encoder.batch_clips  # It shrinks where a batch did not fit into the memory.
        self._batches: deque[_Batch] = deque()
        self._threads = ThreadPoolExecutor(threads) if threads else None

    def add(self, key: str, part: Part, facts: Mapping[str, object]) -> None:
        """Take one clip. Raises CacheError if the cache cannot be written, FsmmError if the encoder is unusable."""
        self._waiting.append(_Waiting(key, part, facts))
        self._ready += part.state == READY
        self._bytes += _size(part)
        if self._ready >= self._most or not self._ready:
            self._send_off()
        self._collect(bound=_MOST_BYTES)

    def copy(
        self,
        key: str,
        features: np.ndarray | None,
        facts: Mapping[str, object],
        times: np.ndarray | None = None,
    ) -> None:
        """Add a row that another clip of the same file has. Raises CacheError if the cache cannot be written."""
        with self.clock("write"):
            self.writer.add(key, features, facts, times)
        self.copied += 1

    def drain(self) -> None:
        """Encode and write the clips that wait."""
        self._send_off()
        self._collect(bound=-1)

    def flush(self) -> None:
        """Make the rows that are written safe."""
        with self.clock("write"):
            self.writer.flush()

    def close(self) -> None:
        """End the threads; what they have not begun is left."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _send_off(self) -> None:
        """Begin to encode the clips that wait."""
        rows, self._waiting, self._ready = self._waiting, [], 0
        if not rows:
            return
        values = [row.part.value for row in rows if row.part.state == READY]
        made: Future[tuple[list[Made], int]] | None = None
        if values and self._threads is not None:
            made = self._threads.submit(self._encode, values)
        elif values:
            made = Future()
            made.set_result(self._encode(values))
        self._batches.append(_Batch(rows, made))

    def _encode(self, values: Sequence[Any]) -> tuple[list[Made], int]:
        """What becomes of prepared clips; it may run in a thread of its own."""
        began = time.perf_counter()
        with self.clock.shared("encode"):
            found = encode_each(self.encoder, values)
        self.seconds += time.perf_counter() - began
        return found

    def _collect(self, bound: int) -> None:
        """Write the batches that are encoded, in order; wait for those whose clips exceed ``bound`` bytes."""
        while self._batches:
            batch = self._batches[0]
            if batch.made is not None and not batch.made.done() and self._bytes <= bound:
                return
            made, fits = batch.made.result() if batch.made is not None else ([], self._most)
            self._batches.popleft()
            self._bytes -= sum(_size(row.part) for row in batch.rows)
            if fits < len(made):
                self._most = min(self._most, fits)
            self._settle(batch.rows, made)
        self.writer.log = {"rows": self.written, "encode_seconds": round(self.seconds, 3)}

    def _settle(self, rows: Sequence[_Waiting], made: Sequence[Made]) -> None:
        """Write rows. made: what became of those that were ready, in their order."""
        left = iter(made)
        for row in rows:
            if row.part.state == BROKEN:
                raise raised_elsewhere(row.part.value, row.part.reason)
            found = next(left) if row.part.state == READY else row.part.value
            if isinstance(found, Fault):
                self._fail(row.key, found)
            else:
                self._in_a_row = self._in_a_row if found is None else 0
                self._write(row, found)

    def _fail(self, key: str, fault: Fault) -> None:
        self._in_a_row = 0 if fault.is_clips else self._in_a_row + 1
        if self._in_a_row >= _FAILURES_IN_A_ROW:
            raise FsmmError(
                f"Encoder {self.encoder.name!r} failed on {self._in_a_row} clips in a row, the last with: "
                f"{fault.reason[:300]}; check its weights and --device."
            )
        self._record(key, fault.reason)

    def _record(self, key: str, reason: str) -> None:
        self.failures += 1
        self.failed(key, "encode", reason)

    def _write(self, row: _Waiting, features: np.ndarray | None) -> None:
        if features is not None and (trouble := _unstorable(features, self.writer.provenance)):
            self._record(row.key, trouble)
            return
        times = None if features is None else evened(row.part.times, len(features))
        with self.clock("write"):
            self.writer.add(row.key, features, row.facts, times)
        if features is None:
            self.absent += 1
        else:
            self.written += 1


def _size(part: Part) -> int:
    """The bytes of a part's arrays."""
    return int(getattr(part.value, "nbytes", 0))


def _unstorable(features: np.ndarray, provenance: Provenance) -> str:
    """The reason why the writer would refuse these features, or "".

    With this check, a CacheError from the writer means a fault of the cache, not of the clip.
    """
    from ...cache.shard import storable

    try:
        storable("this clip", features, provenance)
    except CacheError as error:
        return str(error)
    return ""


def provenance_of(encoder: Encoder, sampling: Sampling, dtype: str, axis: str = "clip") -> Provenance:
    """The record of all that made a stream's features: encoder, weights, preprocessing, sampling, size and dtype."""
    stated: dict[str, Any] = dict(encoder.provenance())
    return Provenance(
        encoder.name,
        encoder.modality,
        encoder.dim,
        axis=axis,
        dtype=dtype,
        weights=str(stated.pop("weights", "")),
        weights_sha256=str(stated.pop("weights_sha256", "")),
        preprocessing=str(stated.pop("preprocessing", "")),
        sampling=sampling_text(encoder, sampling),
        extra={name: str(value) for name, value in stated.items()},
    )


def sampling_text(encoder: Encoder, sampling: Sampling) -> str:
    """The part of the sampling that concerns this encoder: sound does not depend on segments, nor pictures on sound."""
    return _sampled(encoder.need, sampling)


def _sampled(need: Need, sampling: Sampling) -> str:
    if isinstance(need, PairNeed):
        return f"{_sampled(need.frames, sampling)}; {_sampled(need.sound, sampling)}"
    if isinstance(need, FrameNeed):
        segments = sampling.segments if need.segments is None else need.segments
        position = (
            sampling.position
            if sampling.position == "centre"
            else f"{sampling.position}, seed {sampling.seed}"
        )
        return (
            f"{segments} segments of {need.length} frames, stride {need.stride}, {position}; "
            f"{need.size} px {need.resize}"
        )
    if isinstance(need, AudioNeed):
        return f"mono {need.rate} Hz, at most {sampling.max_seconds:g} s"
    if isinstance(need, SeriesNeed):
        return f"windows of {sampling.window:g} s, {sampling.hop:g} s apart"
    return ""
